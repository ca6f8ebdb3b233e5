"""The evaluation stage: any checkpoint, any task, the paper's settings, interrupted and shared."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import EvalConfig, RunConfig
from weft_rl.errors import UserError
from weft_rl.evaluation.generate import PART, summarise
from weft_rl.evaluation.results_store import ShardedResults
from weft_rl.evaluation.settings import Settings, evaluation_settings
from weft_rl.models.configuration_llada import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import BaseConfig, tiny_config, tiny_tokenizer
from weft_rl.pipeline.run import main

FIXTURES = Path(__file__).parent / "fixtures"
DATA = {
    "sudoku": "published",
    "countdown": "published",
    "gsm8k": str(FIXTURES / "gsm8k_records.jsonl"),
    "math500": str(FIXTURES / "math500_records.jsonl"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint as from elsewhere: random weights, room for any prompt, the tiny symbols."""
    folder = tmp_path_factory.mktemp("model")
    small = tiny_config(BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    options = small.to_dict() | {"rope": True, "max_position_embeddings": 4096}
    fresh_model(LLaDAConfig(**options), 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def command(model, task, out, *options, style="d1", preset="run"):
    words = ["stages=[eval]", f"model={model}", f"task={task}", f"eval.data={DATA[task]}"]
    words += [f"prompt_style={style}", f"eval.preset={preset}", f"out={out}", "device=cpu"]
    return [*words, *options]


def result(out, task):
    entry = json.loads((out / "eval.json").read_text())["base"][task]
    lines = (out / "completions" / "eval-base.jsonl").read_text().splitlines()
    return entry, [json.loads(line) for line in lines]


@pytest.mark.parametrize("task", DATA)
def test_any_checkpoint_on_every_task(model, task, tmp_path):
    options = ["eval.num_records=4", "eval.batch_size=3", "eval.gen_length=64"]
    assert main(command(model, task, tmp_path / "run", *options)) == 0
    entry, rows = result(tmp_path / "run", task)
    assert entry["n"] == len({row["id"] for row in rows}) == 4
    assert entry["score"] == pytest.approx(100 * sum(row["reward"] for row in rows) / 4, abs=0.01)
    low, high = entry["ci95"]
    assert low <= entry["score"] <= high
    assert (entry["settings"]["style"], entry["settings"]["dtype"]) == ("d1", "torch.float32")


def test_a_records_draw_depends_on_seed_and_id_alone(model, tmp_path):
    """Drawn at temperature 1: the same in parts of one and of several batches, by another seed not,
    and two records are not drawn alike."""
    drawn = {}
    for name, size, seed in (("one", 1, 0), ("many", 40, 0), ("other", 40, 1)):
        options = ["eval.num_records=40", f"eval.batch_size={size}", "sampler.temperature=1"]
        words = [*options, f"seed={seed}", "sampler.gen_length=32", "sampler.steps=8"]
        assert main(command(model, "sudoku", tmp_path / name, *words)) == 0
        _, rows = result(tmp_path / name, "sudoku")
        drawn[name] = {row["id"]: row["completion"] for row in rows}
    assert drawn["one"] == drawn["many"]
    assert drawn["one"] != drawn["other"]
    assert len({*drawn["one"].values()}) > 35


def test_the_papers_settings(model, tmp_path):
    for task, length in {"sudoku": 512, "countdown": 512, "gsm8k": 256, "math500": 256}.items():
        settings = evaluation_settings(RunConfig(task=task, eval=EvalConfig(preset="paper")))
        data = "d1" if task == "sudoku" else "published"
        sampler = SamplerConfig(length, 32, length // 2, temperature=0, remasking="low_confidence")
        assert settings == Settings(sampler, "d1_eval", data, None)
    # the whole file, with d1's wording and the tag that the prompt ends in
    arguments = command(model, "gsm8k", tmp_path / "run", "eval.gen_length=32", preset="paper")
    assert main(arguments) == 0
    entry, rows = result(tmp_path / "run", "gsm8k")
    assert entry["n"] == 6
    assert entry["settings"]["sampler"]["steps"] == 16
    assert rows[0]["prompt"].startswith("You are a math expert.")
    assert not rows[0]["completion"].startswith("<reasoning><reasoning>")


def changed(model, folder, **options):
    """The checkpoint under another configuration, of the same weights."""
    shutil.copytree(model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    return folder


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["eval.preset=paper"], r"eval\.preset=paper: its gen_length=256: with the"),
        (["eval.preset=paper", "eval.gen_length=64"], r"eval\.gen_length=64: with the"),
        (["eval.preset=run", "eval.gen_length=64"], r"eval\.gen_length=64: with the"),
        (["eval.preset=run"], r"sampler\.gen_length=256: with the"),
    ],
)
def test_more_tokens_than_the_model_has_positions(model, tmp_path, options, line):
    """Said before the first completion, whichever record's prompt is too long."""
    short = changed(model, tmp_path / "short", max_position_embeddings=2000)
    records = tmp_path / "records.jsonl"
    rows = Path(DATA["gsm8k"]).read_text().splitlines()[:4]
    long = json.loads(rows[0])
    long["question"] = "x" * 1900  # a token a character, beside the wording's
    records.write_text("\n".join([*rows, json.dumps(long)]))
    words = [word for word in command(short, "gsm8k", tmp_path / "run") if "eval." not in word]
    with pytest.raises(UserError, match=line) as told:
        main([*words, f"eval.data={records}", "eval.batch_size=1", *options])
    assert "more than the model's 2000 (max_position_embeddings)" in str(told.value)
    files = (tmp_path / "run" / "completions").rglob("*.jsonl")
    kept = [path.read_text() for path in files]
    assert not any('"completion"' in text for text in kept)


def test_weights_that_are_no_numbers(model, tmp_path):
    broken = changed(model, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.transformer.ln_f.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    words = command(broken, "sudoku", tmp_path / "run", "eval.num_records=2", "eval.gen_length=32")
    with pytest.raises(UserError, match="logits are not finite; look for NaN in its weights"):
        main(words)


def test_a_length_of_its_own_keeps_the_pace():
    config = RunConfig(eval=EvalConfig(gen_length=64))  # the sampler's: 32 tokens in 16 steps
    sampler = evaluation_settings(config).sampler
    assert (sampler.gen_length, sampler.steps) == (64, 32)
    with pytest.raises(UserError, match="gen_length=33: must be a multiple"):
        evaluation_settings(RunConfig(eval=EvalConfig(gen_length=33)))


def test_cells_have_the_puzzle_for_cluster():
    # 50 puzzles all right and 50 all wrong, 8 cells each. By puzzles the standard error is
    # sqrt(.25 / 100) = .05, so about 40 to 60; 800 cells drawn apart would give 46.5 to 53.5
    low, high = summarise([{"cells": k % 2 + 0.0} for k in range(99)] + [{"cells": 0.5}])["ci95"]
    assert low == pytest.approx(40, abs=1.5)
    assert high == pytest.approx(60, abs=1.5)
    # only 0 and 1: Wilson, which at 0 of 100 ends at z^2 / (n + z^2) = 3.84 / 103.84
    assert summarise([{"exact": 0.0}] * 100)["ci95"] == [0, 3.7]


def start(arguments, **environment):
    program = "import sys; from weft_rl.pipeline import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def parts(out):
    lines = [p.read_text().splitlines() for p in out.glob("completions/.eval-base-*/part-*")]
    return [line for file in lines for line in file]


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """What an evaluation that nothing disturbs says."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(model, "countdown", out, *MANY, style="tiny")) == 0
    return *result(out, "countdown"), out


MANY = ["eval.num_records=60", "eval.batch_size=4", "eval.gen_length=32"]


def test_killed_and_resumed(model, whole, tmp_path):
    out = tmp_path / "run"
    process = start(command(model, "countdown", out, *MANY, style="tiny"))
    deadline = time.monotonic() + 120
    while len(parts(out)) < 17 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = parts(out)
    assert 17 <= len(kept) < 60
    (file,) = out.glob("completions/.eval-base-*/part-*")
    with file.open("a") as torn:
        torn.write('{"id": "published-9')  # what a kill in the middle of a write leaves
    # whatever part was kept whole is not generated again: marked lines are found in the result
    marked = file.read_text().replace('"prompt": "', '"prompt": "(kept) ')
    file.write_text(marked)
    assert main(command(model, "countdown", out, *MANY, style="tiny")) == 0
    entry, rows = result(out, "countdown")
    part = PART * 4
    assert sum(row["prompt"].startswith("(kept) ") for row in rows) == len(kept) // part * part
    # the records that can be played back are the first ones, as in a run that went through
    trace = out / "completions" / "trace-base.json"
    assert trace.read_bytes() == (whole[2] / "completions" / "trace-base.json").read_bytes()
    assert [row["completion"] for row in rows] == [row["completion"] for row in whole[1]]
    assert entry == whole[0]
    assert not list(out.glob("completions/.eval-*"))


def test_two_processes_share_the_records(model, whole, tmp_path):
    arguments = command(model, "countdown", tmp_path / "run", *MANY, style="tiny")
    both = [start(arguments, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    for process in both:
        output = process.communicate(timeout=300)[0].decode()
        assert process.returncode == 0, output
    entry, rows = result(tmp_path / "run", "countdown")
    assert [row["id"] for row in rows] == [row["id"] for row in whole[1]]
    assert entry == whole[0]


def test_shares_divide_and_take_up(tmp_path):
    ids = [f"r{i}" for i in range(10)]
    shares = [ShardedResults(tmp_path, "eval", {"seed": 0}, rank, 3) for rank in range(3)]
    assert sorted(name for share in shares for name in share.left(ids)) == sorted(ids)
    for share in shares[:2]:
        share.begin()
        for name in share.left(ids)[:2]:
            share.add({"id": name})
    # r0 r3 and r1 r4 are done; now two processes go on, and another key starts anew
    two = [ShardedResults(tmp_path, "eval", {"seed": 0}, rank, 2) for rank in range(2)]
    assert [share.left(ids) for share in two] == [["r2", "r6", "r8"], ["r5", "r7", "r9"]]
    # r5 is done by a part of two only together with r7
    assert two[1].left(ids, 2) == ["r5", "r7", "r9"]
    two[1].begin()
    two[1].add({"id": "r5"})
    assert two[1].left(ids) == ["r7", "r9"]
    assert two[1].left(ids, 2) == ["r5", "r7", "r9"]
    other = ShardedResults(tmp_path, "eval", {"seed": 1})
    assert other.left(ids) == ids
    for share in two:
        share.begin()
        for name in share.left(ids):
            share.add({"id": name})
    assert [row["id"] for row in two[0].collect(ids)] == ids
    other.begin()
    two[0].remove()
    assert list(tmp_path.iterdir()) == []


def test_processes_without_a_common_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="out=null: several processes need one folder"):
        main(["stages=[base]"])
