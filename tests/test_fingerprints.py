"""What a fingerprint notices of a run directory, and what it does not."""

import copy
import json
from pathlib import Path

import pytest
import torch
from helpers.fingerprints import differences, fingerprint
from safetensors.torch import save_file

RECORDED = Path(__file__).parent / "fixtures" / "fingerprints.json"


def run_directory(folder, *, name="layer", weight=1.0, loss=0.5, time=1.0, reply="a"):
    weights = folder / "checkpoints" / "rl" / "step-1"
    weights.mkdir(parents=True)
    (folder / "completions").mkdir()
    row = {"stage": "rl", "step": 1, "time_s": time, "loss": loss, "step_time": time}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "completions" / "rl.jsonl").write_text(json.dumps({"completion": reply}) + "\n")
    (folder / "eval.json").write_text(json.dumps({"rl": {"sudoku": {"score": 25.0}}}))
    tensors = {name: torch.full((2, 3), weight), "head": torch.zeros(2, dtype=torch.bfloat16)}
    save_file(tensors, weights / "model.safetensors")
    return fingerprint(folder)


@pytest.mark.parametrize("change", [{}, {"time": 2.0}, {"name": "block"}])
def test_times_and_names_of_tensors_do_not_count(tmp_path, change):
    first, second = run_directory(tmp_path / "a"), run_directory(tmp_path / "b", **change)
    assert differences(first, second) == []


@pytest.mark.parametrize("change", [{"loss": 0.5000001}, {"weight": 1.0000001}, {"reply": "b"}])
def test_values_count(tmp_path, change):
    first, second = run_directory(tmp_path / "a"), run_directory(tmp_path / "b", **change)
    assert len(differences(first, second)) == 1


def test_a_recorded_file_equals_itself_and_notices_a_number():
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert differences(recorded, copy.deepcopy(recorded)) == []
    changed = copy.deepcopy(recorded)
    row = changed["weft, rl"]["metrics.jsonl"][-1]
    row["loss"] += 1e-9
    assert len(differences(recorded, changed)) == 1
    # what is missing counts, what is new does not
    row["loss"] -= 1e-9
    row["new"] = 1.0
    del changed["compare"]
    assert [line.split(":")[0] for line in differences(recorded, changed)] == ["/compare"]
