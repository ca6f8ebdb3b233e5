"""Checkpoints whose checksums are right and whose content is not: set aside, nothing is lost."""

import json
import os
import pickle
import shutil

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


def pickled(name):
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Bomb()))


def emptied(name):
    return lambda folder: (folder / name).write_bytes(b"")


def removed(name):
    return lambda folder: (folder / name).unlink()


def saved(name, change):
    """A file of torch.save with its content changed."""

    def tamper(folder):
        state = torch.load(folder / name, weights_only=True)
        change(state)
        torch.save(state, folder / name)

    return tamper


def states(name, **values):
    """A JSON file with some values changed."""

    def tamper(folder):
        tree = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(tree | values))

    return tamper


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def other_shape(state):
    state["state"][0]["exp_avg"] = torch.zeros(1, 1)


def older(name):
    return lambda folder: shutil.copy(folder.with_name("step-4") / name, folder / name)


def fifo(name):
    def tamper(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return tamper


STATE, LINE = "trainer_state.json", "metric_line_0.json"
BOTH = {
    "a pickle as optimizer.pt": pickled("optimizer.pt"),
    "a pickle as scheduler.pt": pickled("scheduler.pt"),
    "empty weights": emptied("model.safetensors"),
    "an extra scaler.pt": pickled("scaler.pt"),
    "an extra pytorch_model.bin": pickled("pytorch_model.bin"),
    "an empty trainer_state.json": emptied(STATE),
    "a text as step": states(STATE, global_step="6"),
    "another step": states(STATE, global_step=4),
    "an extra key": states(STATE, evil=1),
    "a list as state": text(STATE, "[]"),
    "deep JSON": text(LINE, "[" * 100_000),
    "a metric line of another type": states(LINE, loss="x"),
    "another shape in the optimizer": saved("optimizer.pt", other_shape),
    "an older optimizer": older("optimizer.pt"),
    "a named pipe": fifo("tokenizer.json"),
}
MORE = {
    "rl": {
        "a pickle as rollout_0.pt": pickled("rollout_0.pt"),
        "a pickle as rng_state.pth": pickled("rng_state.pth"),
        "an older rollout": older("rollout_0.pt"),
        "a rollout without ids": saved("rollout_0.pt", lambda state: state.pop("ids")),
        "rows of a rollout": saved(
            "rollout_0.pt", lambda s: s["buffer"][0].update(advantages=torch.zeros(3))
        ),
    },
    "weft": {
        "no random states": removed("rng_state.pth"),
        "a broken tokenizer": text("tokenizer.json", "{}"),
        "entropies of another vocabulary": emptied("token_entropy_0.safetensors"),
        "nothing in the metric line": text(LINE, "{}"),
        "a number as log": states(STATE, log_history=3),
    },
}
CASES = [
    *(("weft", name) for name in [*BOTH, *MORE["weft"]]),
    *(("rl", name) for name in [*MORE["rl"], "another shape in the optimizer", "another step"]),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of each stage: the files of an undisturbed run, and a run stopped after its last step."""
    found = {}
    for stage in MORE:
        root = tmp_path_factory.mktemp(stage)
        found[stage] = root, whole(stage, root), stopped(stage, root)
    return found


def resume(stage, root, folder, tamper, places=(LAST,)):
    shutil.copytree(folder, root / "run")
    for place in places:
        checkpoint = root / "run" / "checkpoints" / stage / place
        tamper(checkpoint)
        write_checksums(checkpoint)
    return live(command(stage, root), root / "log")


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_it_is_set_aside_and_the_run_ends_the_same(stage, name, runs):
    root, unharmed, folder = runs[stage]
    life = resume(stage, root, folder, (BOTH | MORE[stage])[name])
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
    life = resume("weft", root, folder, text(STATE, "[]"), ("step-4", LAST))
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
        text(STATE, "[]")(checkpoint)

    life = resume("weft", root, folder, tamper)
    shutil.rmtree(root / "run")
    assert life.status == 0, life.output
    assert root.is_dir()
