"""Checkpoints whose checksums are right and whose content is not: set aside, nothing is lost."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from broken import LAST, stopped
from folders import differences
from kills import command, whole
from lives import live

from weft_rl.runs.checksums import write_checksums

pytestmark = pytest.mark.slow


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("/tmp/weft-rl-bomb",)


def pickled(path):
    path.write_bytes(pickle.dumps(Bomb()))


def emptied(path):
    path.write_bytes(b"")


def older(path):
    shutil.copy(path.parent.with_name("step-4") / path.name, path)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def saved(change):
    def tamper(path):
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)

    return tamper


def states(**values):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


def text(content):
    return lambda path: path.write_text(content)


def other_shape(state):
    state["state"][0]["exp_avg"] = torch.zeros(1, 1)


def other_rows(state):
    state["buffer"][0].update(advantages=torch.zeros(3))


STATE, LINE = "trainer_state.json", "metric_line_0.json"
CASES = [
    *(("weft", name, pickled) for name in ("optimizer.pt", "pytorch_model.bin")),  # one is extra
    *(("weft", name, emptied) for name in ("model.safetensors", STATE)),
    *(("weft", STATE, states(global_step=step)) for step in ("6", 4)),
    *(("weft", STATE, text("[]")), ("weft", LINE, text("[" * 100_000))),
    *(("weft", "optimizer.pt", change) for change in (saved(other_shape), older)),
    ("weft", "tokenizer.json", fifo),
    ("weft", "rng_state.pth", Path.unlink),
    ("weft", "token_entropy_0.safetensors", emptied),  # of another vocabulary
    *(("rl", name, pickled) for name in ("rollout_0.pt", "rng_state.pth")),
    ("rl", "rollout_0.pt", older),
    *(("rl", "rollout_0.pt", saved(c)) for c in (lambda state: state.pop("ids"), other_rows)),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of each stage: the files of an undisturbed run, and a run stopped after its last step."""
    found = {}
    for stage in ("weft", "rl"):
        root = tmp_path_factory.mktemp(stage)
        found[stage] = root, whole(stage, root), stopped(stage, root)
    return found


def emptied_state(checkpoint):
    emptied(checkpoint / STATE)


def resume(stage, root, folder, tamper, places=(LAST,)):
    shutil.copytree(folder, root / "run")
    for place in places:
        checkpoint = root / "run" / "checkpoints" / stage / place
        tamper(checkpoint)
        write_checksums(checkpoint)
    return live(command(stage, root), root / "log")


@pytest.mark.parametrize(("stage", "name", "tamper"), CASES)
def test_it_is_set_aside_and_the_run_ends_the_same(stage, name, tamper, runs):
    root, unharmed, folder = runs[stage]
    life = resume(stage, root, folder, lambda checkpoint: tamper(checkpoint / name))
    try:
        assert life.status == 0, life.output
        (line,) = [each for each in life.output.splitlines() if f"{LAST}.damaged" in each]
        assert f"{LAST}:" in line
        shutil.rmtree(root / "run" / "checkpoints" / stage / f"{LAST}.damaged")
        assert differences(root / "run", unharmed.files) == []
        assert not os.path.exists("/tmp/weft-rl-bomb")
    finally:
        shutil.rmtree(root / "run")


def test_with_no_good_checkpoint_the_stage_begins_anew(runs):
    root, unharmed, folder = runs["weft"]
    life = resume("weft", root, folder, emptied_state, ("step-4", LAST))
    try:
        assert life.status == 0, life.output
        for place in ("step-4", LAST):
            shutil.rmtree(root / "run" / "checkpoints" / "weft" / f"{place}.damaged")
        assert differences(root / "run", unharmed.files) == []
    finally:
        shutil.rmtree(root / "run")


@pytest.mark.parametrize("in_the_way", ["file", "link", "folder"])
def test_another_damaged_one_in_the_way(in_the_way, runs):
    root, _, folder = runs["weft"]

    def tamper(checkpoint):
        aside = checkpoint.with_name(f"{LAST}.damaged")
        if in_the_way == "file":
            aside.write_text("mine")
        elif in_the_way == "link":
            aside.symlink_to(root)
        else:
            aside.mkdir()
        emptied_state(checkpoint)

    life = resume("weft", root, folder, tamper)
    shutil.rmtree(root / "run")
    assert life.status == 0, life.output
    assert root.is_dir()
