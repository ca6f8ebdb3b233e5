"""The evaluation stage: any checkpoint and task, the paper's settings, interruptions, ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import read_lines, write_lines
from tiny_model import write_model

from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import EvalConfig, RunConfig
from weft_rl.errors import Interrupted, UserError
from weft_rl.evaluation.generate import PART, summarize
from weft_rl.evaluation.results_store import ShardedResults
from weft_rl.evaluation.settings import Settings, evaluation_settings
from weft_rl.pipeline.run import main

FIXTURES = Path(__file__).parent / "fixtures"
DATA = {
    "sudoku": "published",
    "countdown": "published",
    "gsm8k": str(FIXTURES / "gsm8k_records.jsonl"),
    "math500": str(FIXTURES / "math500_records.jsonl"),
}
MANY = ["eval.num_records=36", "eval.batch_size=4", "eval.gen_length=32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return write_model(folder, rope=True, max_position_embeddings=4096)


def command(model, task, out, *options, style="d1", preset="run"):
    arguments = ["stages=[eval]", f"model={model}", f"task={task}", f"eval.data={DATA[task]}"]
    arguments += [f"prompt_style={style}", f"eval.preset={preset}", f"out={out}", "device=cpu"]
    return [*arguments, *options]


def result(out, task):
    entry = json.loads((out / "eval.json").read_text())["base"][task]
    return entry, read_lines(out / "completions" / "eval-base.jsonl")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_records_draw_depends_on_seed_and_id_alone(model, tmp_path):
    drawn = {}
    common = ["eval.num_records=9", "sampler.temperature=1", "sampler.gen_length=32"]
    for name, size, seed in (("one", 1, 0), ("many", 9, 0), ("other", 9, 1)):
        words = [*common, "sampler.steps=8", f"eval.batch_size={size}", f"seed={seed}"]
        assert main(command(model, "sudoku", tmp_path / name, *words)) == 0
        _, rows = result(tmp_path / name, "sudoku")
        drawn[name] = {row["id"]: row["completion"] for row in rows}
    assert drawn["one"] == drawn["many"]
    assert drawn["one"] != drawn["other"]
    assert len({*drawn["one"].values()}) > 7


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


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["eval.preset=paper"], r"eval\.preset=paper"),
        (["eval.preset=paper", "eval.gen_length=64"], r"eval\.gen_length=64"),
        (["eval.preset=run", "eval.gen_length=64"], r"eval\.gen_length=64"),
        (["eval.preset=run"], r"sampler\.gen_length=256"),
    ],
)
def test_prompts_that_leave_no_room_are_refused_before_generation(tmp_path, options, key):
    short = write_model(tmp_path / "short", rope=True, max_position_embeddings=2000)
    records = tmp_path / "records.jsonl"
    rows = read_lines(Path(DATA["gsm8k"]))[:4]
    # one token per character, beside the wording's
    write_lines(records, [*rows, rows[0] | {"question": "x" * 1900}])
    argv = [word for word in command(short, "gsm8k", tmp_path / "run") if "eval." not in word]
    with pytest.raises(UserError, match=rf"{key}: .*max_position_embeddings=2000"):
        main([*argv, f"eval.data={records}", "eval.batch_size=1", *options])
    texts = [path.read_text() for path in (tmp_path / "run" / "completions").rglob("*.jsonl")]
    assert not any('"completion"' in text for text in texts)


def test_another_gen_length_keeps_tokens_per_step():
    config = RunConfig(eval=EvalConfig(gen_length=64))  # the sampler's: 32 tokens in 16 steps
    sampler = evaluation_settings(config).sampler
    assert (sampler.gen_length, sampler.steps) == (64, 32)
    with pytest.raises(UserError, match="gen_length=33"):
        evaluation_settings(RunConfig(eval=EvalConfig(gen_length=33)))


def test_intervals_cluster_cells_by_puzzle():
    # 50 puzzles all right and 50 all wrong, 8 cells each. By puzzles the standard error is
    # sqrt(.25 / 100) = .05, so about 40 to 60; 800 independent cells would give 46.5 to 53.5
    low, high = summarize([{"cells": k % 2 + 0.0} for k in range(99)] + [{"cells": 0.5}])["ci95"]
    assert low == pytest.approx(40, abs=1.5)
    assert high == pytest.approx(60, abs=1.5)
    # only 0 and 1: Wilson, which at 0 of 100 ends at z^2 / (n + z^2) = 3.84 / 103.84
    assert summarize([{"exact": 0.0}] * 100)["ci95"] == [0, 3.7]


@pytest.fixture(scope="module")
def uninterrupted(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert main(command(model, "countdown", out, *MANY, style="tiny")) == 0
    return *result(out, "countdown"), out


@pytest.mark.slow
def test_an_interrupted_evaluation_resumes(model, uninterrupted, tmp_path, monkeypatch):
    entry, rows, folder = uninterrupted
    out, argv = tmp_path / "run", command(model, "countdown", tmp_path / "run", *MANY, style="tiny")
    append, kept = ShardedResults.append, 17

    def interrupted(self, row):
        if len(self.rows()) == kept:
            raise KeyboardInterrupt
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(ShardedResults, "append", interrupted)
        with pytest.raises(Interrupted):
            main(argv)
    (file,) = out.glob("completions/.eval-base-*/part-*")
    # marks show which rows are reused; the last line is what a kill during a write leaves
    marked = file.read_text().replace('"prompt": "', '"prompt": "(kept) ')
    file.write_text(marked + '{"id": "published-9')
    assert main(argv) == 0
    resumed_entry, resumed = result(out, "countdown")
    part = PART * 4
    assert sum(row["prompt"].startswith("(kept) ") for row in resumed) == kept // part * part
    trace = "completions/trace-base.json"
    assert (out / trace).read_bytes() == (folder / trace).read_bytes()
    assert [row["completion"] for row in resumed] == [row["completion"] for row in rows]
    assert resumed_entry == entry
    assert not list(out.glob("completions/.eval-*"))


@pytest.mark.slow
def test_two_processes_share_the_records(model, uninterrupted, tmp_path, monkeypatch):
    argv = command(model, "countdown", tmp_path / "run", *MANY, style="tiny")
    monkeypatch.setenv("WORLD_SIZE", "2")
    other = subprocess.Popen(
        [sys.executable, "-m", "weft_rl.pipeline", *argv], env=os.environ | {"RANK": "1"}
    )
    assert main(argv) == 0
    assert other.wait(timeout=120) == 0
    entry, rows = result(tmp_path / "run", "countdown")
    assert [row["id"] for row in rows] == [row["id"] for row in uninterrupted[1]]
    assert entry == uninterrupted[0]


def test_sharded_results(tmp_path):
    ids = [f"r{i}" for i in range(10)]
    three = [ShardedResults(tmp_path, "eval", {"seed": 0}, rank, 3) for rank in range(3)]
    assert sorted(name for shard in three for name in shard.pending(ids)) == sorted(ids)
    for shard in three[:2]:
        shard.open()
        for name in shard.pending(ids)[:2]:
            shard.append({"id": name})
    # r0 r3 and r1 r4 are done; two processes resume, and another key begins anew
    two = [ShardedResults(tmp_path, "eval", {"seed": 0}, rank, 2) for rank in range(2)]
    assert [shard.pending(ids) for shard in two] == [["r2", "r6", "r8"], ["r5", "r7", "r9"]]
    two[1].open()
    two[1].append({"id": "r5"})
    assert two[1].pending(ids) == ["r7", "r9"]
    # in a batch of two, r5 is done together with r7
    assert two[1].pending(ids, 2) == ["r5", "r7", "r9"]
    other = ShardedResults(tmp_path, "eval", {"seed": 1})
    assert other.pending(ids) == ids
    for shard in two:
        shard.open()
        for name in shard.pending(ids):
            shard.append({"id": name})
    assert [row["id"] for row in two[0].gather(ids)] == ids
    other.open()
    two[0].remove()
    assert list(tmp_path.iterdir()) == []


def test_several_processes_need_a_directory(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="out=null"):
        main(["stages=[base]"])
