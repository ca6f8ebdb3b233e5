"""Run and comparison directories for the tests of reports, and the browser."""

import shutil

from run_folders import write_lines

from weft_rl.evaluation.paired_runs import ArmRun, compare_runs
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.folder import DENOISING_REPLAY, ENTROPY_HEATMAP

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
STEPS = [1, 2, 3, 5, 8, 9, 10, 20]
REWARDS = [0.1, 0.5, 0.2, 0.6, 0.3, 0.8, 0.7, 0.9]
HOSTILE = "</script><script>document.title='broken'</script>"
BASELINES = {"all <ones>": {"n": 2, "score": 25.0, "ci95": [0.0, 50.0]}}


def run_folder(path):
    (path / "completions").mkdir(parents=True)
    (path / "config.yaml").write_text("stages: [weft, rl]\n")
    write_rewards(path, dict(zip(STEPS, REWARDS, strict=True)))
    heatmap = {"tokens": ["a", HOSTILE], "entropy": [4, 1], "beta": [2, 1], "ratio": [4 / 3, 2 / 3]}
    write_json(path / ENTROPY_HEATMAP.format(stage="weft"), {"examples": [heatmap]})
    replay = {"prompt": HOSTILE, "tokens": ["x", HOSTILE], "opened": [2, 1]}
    replay |= {"confidences": [0.5, 0.9], "steps": 2}
    write_json(path / DENOISING_REPLAY.format(stage="rl"), {"examples": [replay]})
    result = {"rl": {"sudoku": {"n": 1, "score": 5.0, "ci95": [0.0, 9.0]}}}
    write_json(path / "eval.json", result)
    return path


def write_rewards(run, rewards):
    run.mkdir(exist_ok=True)
    rows = [{"stage": "rl", "step": step, "reward": reward} for step, reward in rewards.items()]
    write_lines(run / "metrics.jsonl", rows)


def comparison_folder(path):
    """Two arms with two seeds; WeFT is 25 points higher after RL."""
    path.mkdir()
    units = [
        ArmRun(arm, seed, _scores([0.0, 0.5], [0.25, 0.5], [rl, rl]), BASELINES)
        for arm, rl in (("sft", 0.5), ("weft", 0.75))
        for seed in (0, 1)
    ]
    write_json(path / "comparison.json", compare_runs(units, ["sft", "weft"], [0, 1], "sudoku"))
    return path


def _scores(*stages):
    return {
        stage: {f"test-{i}": {"cell_accuracy": value} for i, value in enumerate(values)}
        for stage, values in zip(("base", "cold_start", "rl"), stages, strict=True)
    }
