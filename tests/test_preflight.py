"""Errors of a run before its directory is created, the same in every command."""

import json
import re

import pytest
from upstream_checkpoint import llada_folder

from weft_rl import compare
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.pipeline import run as pipeline
from weft_rl.pipeline.preflight import check_run
from weft_rl.reproduce import __main__ as reproduce

COMMANDS = [
    (pipeline.main, "stages=[weft,rl]"),
    (compare.main, "arms=[sft,weft]"),
    (reproduce.main, "table=2"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("main", "word"), COMMANDS)
@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("device=cuda:99", "device=cuda:99: "),  # that many are nowhere
        ("rl.lora.r=2 rl.lora.targets=[nope]", "rl.lora.targets"),
        ("rl.rollout.reward_weights=[1,2]", "(cell_accuracy)"),
        ("memory.quantization=nf4 cold_start.lora.r=2 rl.lora.r=2", "memory.quantization=nf4: rl"),
    ],
)
def test_every_command_checks_before_its_folder_exists(main, word, words, key, tmp_path):
    with pytest.raises(UserError, match=re.escape(key)):
        main([word, *words.split(), f"out={tmp_path / 'run'}"])
    assert not any(tmp_path.iterdir())


ARMS = "arms=[sft,weft]"
MISTAKES = [
    *((compare.main, f"arms=[{arms}]") for arms in ("", "sft,rl", "sft,sft")),
    *((compare.main, f"{ARMS} seeds=[{seeds}]") for seeds in ("0,a", "1,1", "-1")),
    *((compare.main, f"{ARMS} {word}") for word in ("workers=0", "launcher=slurm", "seed=1")),
    *((compare.main, f"{ARMS} {word}") for word in ("stages=[rl]", "eval.after_each=false")),
    *((compare.main, f"{ARMS} {word}") for word in ("rl.max_step=3", "seedz=[0]", "--fast")),
    *((compare.main, f"{ARMS} {word}") for word in ("rl.num_prompts=0", "model=./none")),
    *((reproduce.main, word) for word in ("table=6", "figure=1", "figure=3 table=2", "tabel=2")),
    *((reproduce.main, f"table=2 {word}") for word in ("seeds=[1,1]", "seed=1", "rl.max_step=3")),
    *((reproduce.main, f"table=2 {word}") for word in ("model=./none", "data=none.jsonl")),
    *((compare.main, "arms"), (reproduce.main, "table"), (reproduce.main, "everything")),
    (compare.main, f"{ARMS} data=none.jsonl"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("main", "words"), MISTAKES)
def test_user_errors_stop_before_anything_runs(main, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = words.split()[-1].removeprefix("data=")
    with pytest.raises(UserError, match=re.escape(key)):
        main([] if words in ("arms", "table") else words.split())
    assert not any(tmp_path.iterdir())


def test_places_and_models_are_checked_before_data(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", "/proc/weft-rl/run"):  # /proc refuses folders, root's too
        with pytest.raises(UserError, match=f"out={out}"):
            pipeline.main(["stages=[rl]", f"out={out}"])
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    words = ["preset=paper", f"model={tmp_path}", f"data={tmp_path / 'none.jsonl'}"]
    with pytest.raises(UserError, match=f"{tmp_path}: model_type='bert'"):
        pipeline.main(words)
    with pytest.raises(UserError, match=r"cold_start\.ref_model"):
        compare.main(["arms=[sft,rho1]", f"out={tmp_path / 'run'}"])


@pytest.mark.slow
@pytest.mark.parametrize("key", ["rl.rollout.data", "eval.data"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("utf16.csv", "question,answer\nq,1\n".encode("utf-16")),
        *(("torn.jsonl.gz", b"\x1f\x8bnonsense"), ("p.parquet", b"PAR1 and no more")),
        *(("array.json", b'[{"question": "q", "answer": "1"},]'), ("missing.parquet", None)),
    ],
)
def test_data_that_cannot_be_read_stops_a_run_at_once(key, name, content, tmp_path):
    path, out = tmp_path / name, tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    good = tmp_path / "good.jsonl"
    good.write_text('{"question": "q", "answer": "1"}')
    data = {"rl.rollout.data": good, key: path}
    words = ["stages=[weft,rl]", "task=gsm8k", "prompt_style=d1", f"out={out}"]
    with pytest.raises(UserError, match=f"^{path}:"):
        pipeline.main([*words, *(f"{name}={place}" for name, place in data.items())])
    assert not out.exists()


@pytest.mark.parametrize("key", ["rl.rollout", "eval"])
def test_repeated_records_stop_a_run_only_where_they_are_to(key, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "answer": "1"}\n' * 2)
    words = ["stages=[rl]", "task=gsm8k", "prompt_style=d1", f"rl.rollout.data={path}"]
    words.append(f"eval.data={path}")
    check_run(load_run_config(words, command="it"))
    with pytest.raises(UserError, match=rf"a\.jsonl:2: .*{key}\.bad_records"):
        check_run(load_run_config([*words, f"{key}.bad_records=strict"], command="it"))


def test_a_devices_machine_is_asked_elsewhere():
    """A cluster's first machine has no GPU."""
    config = load_run_config(["device=cuda:99"], command="it")
    with pytest.raises(UserError, match="device=cuda:99"):
        check_run(config)
    check_run(config, here=False)


@pytest.fixture
def adapter(tmp_path):
    base, _ = llada_folder(tmp_path / "base")
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, below in zip(folders, [str(base), "../one"], strict=True):
        folder.mkdir()
        named = {"base_model_name_or_path": below}
        (folder / "adapter_config.json").write_text(json.dumps(named))
    return folders[-1]


def checked(adapter, *words):
    argv = ["preset=tiny", "stages=[rl]", f"model={adapter}", "rl.lora.r=2", *words]
    check_run(load_run_config(argv, command="it"))


def test_targets_are_those_of_the_model_under_the_adapters(adapter):
    checked(adapter, "rl.lora.targets=[q_proj]")
    with pytest.raises(UserError, match=r"rl\.lora\.targets"):
        checked(adapter, "rl.lora.targets=[nope]")


def test_an_adapter_without_its_base(adapter, tmp_path):
    next((tmp_path / "base").glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=f"{tmp_path / 'base'}"):
        checked(adapter)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=f"{tmp_path / 'base'}"):
        checked(adapter)
    named = (tmp_path / "one" / "adapter_config.json").write_text
    named('{"base_model_name_or_path": "gone"}')
    with pytest.raises(UserError, match="gone"):
        checked(adapter)
    named("{}")
    with pytest.raises(UserError, match="base_model_name_or_path"):
        checked(adapter)
