"""What is fuzzed: by name, how a case is used and where the cases come from."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import torch
from datasets import Dataset
from fuzz import Damage, arguments, damage, damages, lines, read_arguments, with_damage
from hypothesis import strategies as st
from pyarrow import parquet

from weft_rl.checkpoints.safetensors_index import INDEX, SINGLE
from weft_rl.config.cold_start import DataConfig
from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.config.model import LoraConfig
from weft_rl.config.overrides import diff_configs
from weft_rl.config.schema import BaseConfig
from weft_rl.data.rejects import Rejects
from weft_rl.data.sources import read_traces
from weft_rl.data.tasks import load_records
from weft_rl.models.loading import fresh_model, load_model, load_tokenizer, with_lora
from weft_rl.models.toy import tiny_config, tiny_tokenizer
from weft_rl.runs.checksums import find_corruption, write_checksums
from weft_rl.runs.folder import finished_stages

Use = Callable[[Any], Any]
_CPU = torch.device("cpu")
_TRACE = {"question": "2+3", "thinking_trajectories": ["add"], "attempt": "5"}
_CHAT = [{"role": "user", "content": "2+3"}, {"role": "assistant", "content": "<think>a</think>5"}]
_ROWS = [_TRACE, {"messages": _CHAT, "num_tokens": 9, "source": "x"}, {"messages": _CHAT}]
_RECORDS = {
    "sudoku": {"Puzzle": "4320004330100004", "Solution": "4321124334122134"},
    "countdown": {"input": "30,100,93", "output": "23"},
    "gsm8k": {"question": "2+3?", "answer": "#### 5"},
    "math500": {"problem": "2+3", "answer": "5"},
}


def targets(root: Path) -> dict[str, tuple[Use, st.SearchStrategy[Any]]]:
    """Every target by name; whole files to damage are made below `root`."""
    names = ("model", "adapter", "saved", "sealed")
    model, adapter, saved, sealed = (root / name for name in names)
    make_model(model)
    _make_adapter(model, adapter)
    sealed.mkdir()
    (sealed / "trainer_state.json").write_text('{"global_step": 6, "log_history": []}')
    write_checksums(sealed)
    Dataset.from_list([_TRACE]).save_to_disk(saved)
    traces, table = root / "traces.jsonl", root / "traces.parquet"
    traces.write_text("".join(f"{json.dumps(row)}\n" for row in _ROWS))
    parquet.write_table(pyarrow.Table.from_pylist([_TRACE]), table)
    rows = st.tuples(st.booleans(), st.one_of(damages("x"), lines()))
    return {
        "arguments": (read_arguments, arguments()),
        "config.yaml": (_read_config, st.text() | damages("x").map(_damaged_config)),
        "lines": (partial(_read_traces, root / "lines.jsonl"), lines()),
        "jsonl": _of_file(traces, root / "damaged.jsonl", _read_traces),
        "parquet": _of_file(table, root / "damaged.parquet", _read_traces),
        "records": (partial(_read_records, root), st.tuples(st.sampled_from([*_RECORDS]), rows)),
        "saved data set": _of_folder(saved, root / "damaged-saved", _read_traces),
        "model": _of_folder(model, root / "damaged-model", _load),
        "adapter": _of_folder(adapter, root / "damaged-adapter", _load),
        "checksums": _of_folder(sealed, root / "damaged-sealed", _find_damage),
        "stages.json": (partial(_read_stages, root), damages("stages.json")),
    }


def _of_file(whole: Path, place: Path, use: Callable[[Path, bytes], Any]) -> Any:
    content = whole.read_bytes()
    cases = damages(whole.name)
    return (lambda what: use(place, damage(content, what))), cases


def _of_folder(whole: Path, place: Path, use: Callable[[Path], Any]) -> Any:
    files = {
        str(path.relative_to(whole)): path.read_bytes()
        for path in sorted(whole.rglob("*"))
        if path.is_file()
    }

    def one(what: Damage) -> None:
        with_damage(place, files, what)
        use(place)

    return one, damages(*files)


def make_model(folder: Path) -> None:
    options = BaseConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = fresh_model(tiny_config(options), 0)
    model.save_pretrained(folder)
    # an index beside the weights, as a model of several files has
    (folder / SINGLE).rename(folder / "model-00001-of-00001.safetensors")
    names = dict.fromkeys(model.state_dict(), "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    tiny_tokenizer().save_pretrained(folder)


def _make_adapter(model: Path, folder: Path) -> None:
    base = load_model(str(model), _CPU, torch.float32)
    options = LoraConfig(r=2, targets=["q_proj"])
    with_lora(base, options, str(model), folder).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def _load(folder: Path) -> None:
    load_tokenizer(str(folder))
    load_model(str(folder), _CPU, torch.float32)


def _find_damage(folder: Path) -> None:
    found, changed = find_corruption(folder), (folder / "trainer_state.json").read_bytes()
    if found is None and changed != b'{"global_step": 6, "log_history": []}':
        raise AssertionError("a changed file of a checkpoint went unnoticed")


def _read_config(text: str) -> None:
    diff_configs(text, load_run_config([], command="weft_rl.pipeline"))


def _damaged_config(what: Damage) -> str:
    text = to_yaml(load_run_config([], command="weft_rl.pipeline")).encode()
    return damage(text, what).decode("utf-8", "replace")


def _read_traces(path: Path, content: bytes | None = None) -> None:
    if content is not None:
        path.write_bytes(content)
    read_traces(str(path), DataConfig(), Rejects("error"))


def _read_records(root: Path, case: tuple[str, tuple[bool, Damage | bytes]]) -> None:
    task, (is_csv, what) = case
    record = _RECORDS[task]
    whole = json.dumps(record).encode()
    if is_csv:
        cells = (f'"{value}"' for value in record.values())
        whole = f"{','.join(record)}\n{','.join(cells)}\n".encode()
    path = root / f"records.{'csv' if is_csv else 'jsonl'}"
    path.write_bytes(what if isinstance(what, bytes) else damage(whole, what))
    load_records(task, str(path))


def _read_stages(root: Path, what: Damage) -> None:
    whole = {"base": "checkpoints/base/step-4", "weft": "checkpoints/weft/step-6"}
    (root / "stages.json").write_bytes(damage(json.dumps(whole).encode(), what))
    finished_stages(root)
