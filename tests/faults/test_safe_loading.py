"""Nothing that lies in a checkpoint or data set is run, and nothing outside of it is read."""

import json
import os
import pickle
import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from fuzz_targets import make_model

from weft_rl.config.cold_start import DataConfig
from weft_rl.data.rejects import Rejects
from weft_rl.data.sources import read_traces
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model, load_tokenizer
from weft_rl.runs.folder import finished_stages

SOURCES = [path for name in ("weft_rl", "stages", "rewards") for path in Path(name).rglob("*.py")]


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def model(tmp_path):
    make_model(tmp_path / "model")
    return tmp_path / "model"


def load(model):
    load_model(str(model), torch.device("cpu"), torch.float32)


def test_a_pickle_in_a_model_is_not_opened(model, tmp_path):
    mark = tmp_path / "ran"
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin"):
        (model / name).write_bytes(pickle.dumps(Bomb(mark)))
    load(model)
    for path in model.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(UserError, match="safetensors"):
        load(model)
    assert not mark.exists()


def test_code_in_a_model_is_not_run(model, tmp_path):
    (model / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    for name in ("config.json", "tokenizer_config.json"):
        config = json.loads((model / name).read_text())
        own = {"AutoConfig": "own.C", "AutoTokenizer": ["own.T", "own.T"], "AutoModel": "own.M"}
        (model / name).write_text(json.dumps(config | {"auto_map": own}))
    for use in (load, lambda model: load_tokenizer(str(model))):
        with suppress(UserError):
            use(model)
    assert not (tmp_path / "ran").exists()


def test_no_source_asks_for_code_or_pickles():
    assert len(SOURCES) > 100
    text = "".join(path.read_text() for path in SOURCES)
    assert "trust_remote_code=True" not in text
    assert not re.search(r"\bimport (pickle|dill|joblib)\b", text)
    loads = re.findall(r"torch\.load\([^\n]*", text)
    assert loads
    assert all("weights_only=True" in call for call in loads)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_names_do_not_lead_out_of_a_folder(model, tmp_path, name):
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=re.escape(name)):
        load(model)
    (tmp_path / "stages.json").write_text(json.dumps({"rl": name}))
    with pytest.raises(UserError, match=re.escape(name)):
        finished_stages(tmp_path)
    saved = tmp_path / "saved"
    Dataset.from_list([{"a": 1}]).save_to_disk(saved)
    state = json.loads((saved / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=re.escape(name)):
        read_traces(str(saved), DataConfig(), Rejects("error"))
