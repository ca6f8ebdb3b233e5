"""The page on a comparison, from hand-made files."""

import shlex

import pytest
import yaml
from html_page import Page
from run_folders import write_lines

from weft_rl.compare.command import read_options
from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import ArmRun, compare_units
from weft_rl.report.run_page import write_report
from weft_rl.runs.folder import write_json

BASELINES = {"all <ones>": {"n": 2, "score": 25.0, "ci95": [0.0, 50.0]}}
ARGV = ["arms=[sft,weft]", "seeds=[0,1]", "rl.max_steps=6"]


def unit(arm, seed, *stages):
    scores = {
        stage: {f"test-{i}": {"cell_accuracy": value} for i, value in enumerate(values)}
        for stage, values in zip(("base", "cold_start", "rl"), stages, strict=True)
    }
    return ArmRun(arm, seed, scores, BASELINES)


@pytest.fixture
def folder(tmp_path):
    units = [
        unit("sft", 0, [0.0, 0.5], [0.25, 0.5], [0.5, 0.5]),
        unit("sft", 1, [0.0, 0.5], [0.25, 0.5], [0.5, 0.5]),
        unit("weft", 0, [0.0, 0.5], [0.25, 0.5], [0.75, 0.75]),
        unit("weft", 1, [0.0, 0.5], [0.25, 0.5], [0.75, 0.75]),
    ]
    path = tmp_path / "two arms"
    path.mkdir()
    write_json(path / "comparison.json", compare_units(units, ["sft", "weft"], [0, 1], "sudoku"))
    return path


def read(folder):
    text = write_report(folder).read_text()
    return text, Page(text)


def test_the_verdict_comes_first(folder):
    _, page = read(folder)
    # every pair of runs and records is .25 apart: 4.303 * .25 / 3 for two records
    verdict = (
        "WeFT then RL against SFT then RL: +25.0 points [-10.9, 60.9] of cell accuracy over "
        "2 seeds: not distinguishable (probability of superiority 1.00)."
    )
    assert page.texts.index(verdict) < page.texts.index("What differs")


def test_the_tables_are_the_comparisons(folder):
    text, page = read(folder)
    differences, recipes, scores = page.tables
    assert recipes[1:] == [
        ["SFT", "uniform", "1 / t"],
        ["WeFT", "root of the entropy", "1 / t_i"],
    ]
    assert differences[1] == [
        "WeFT then RL against SFT then RL",
        "+25.0 [-10.9, 60.9] not distinguishable",
    ]
    assert ["WeFT", "then RL", "75.0 [19.8, 97.3]", "75.0, 75.0"] in scores
    assert scores[-1] == ["no model", "all <ones>", "25.0 [0.0, 50.0]", ""]
    assert "<ones>" not in text


def test_what_differs_between_the_arms_is_told_or_refused(folder):
    assert "All other options are the same in every run." in read(folder)[1].texts
    for name, version, rate in (("sft-seed0", "2.13", 1e-5), ("weft-seed0", "2.14", 1e-5)):
        (folder / name).mkdir()
        config = {"stages": [name], "cold_start": {"learning_rate": rate, "epochs": 5}}
        config["versions"] = {"torch": version}
        (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
    table = read(folder)[1].tables[2]
    assert table == [["option", "SFT", "WeFT"], ["versions.torch", "2.13", "2.14"]]
    config["cold_start"]["learning_rate"] = 2e-5
    (folder / "weft-seed0" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"weft-seed0: .*\(different: cold_start.learning_rate\)"):
        write_report(folder)


def test_curves_and_reports_of_the_runs_that_are_there(folder):
    _, page = read(folder)
    assert "No run has come to reinforcement learning yet." in page.texts
    assert "sft-seed0: no report yet" in page.texts
    for name, scale in (("sft-seed0", 0.1), ("sft-seed1", 0.3), ("weft-seed1", 0.4)):
        (folder / name).mkdir()
        # seed 0 has come further
        steps = (1, 2, 3) if name == "sft-seed0" else (1, 2)
        rows = [{"stage": "rl", "step": step, "reward": scale * step} for step in steps]
        write_lines(folder / name / "metrics.jsonl", rows)
    (folder / "weft-seed1" / "report.html").write_text("")
    text, page = read(folder)
    # at step 2: (.1 + .3) / 2 * 2 = .4, and .4 * 2 = .8
    assert (
        'aria-label="reward in RL: SFT, mean of 2 runs, ends at 0.400; WeFT, ends at 0.800"'
    ) in text
    assert {"SFT, mean of 2 runs", "WeFT"} <= set(page.texts)
    assert [link for link in page.links if not link.startswith("#")] == ["weft-seed1/report.html"]


def test_the_command_repeats_the_comparison(folder):
    assert "The folder holds no configuration." in read(folder)[1].texts
    options, config, _ = read_options(ARGV)
    run = yaml.safe_load(yaml.safe_dump({"model": "tiny", "rl": {"max_steps": 6}}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"run": run, "versions": {"torch": "2"}}))
    _, page = read(folder)
    (line,) = [text for text in page.texts if text.startswith("python -m weft_rl.compare")]
    words = shlex.split(line)[3:]
    assert words == [*ARGV[:2], "model=tiny", "rl.max_steps=6", "out=runs/again"]
    again, same, _ = read_options(words)
    assert (again.arms, again.seeds, same) == (options.arms, options.seeds, config)


def test_a_broken_file_is_named(folder):
    (folder / "comparison.json").write_text("{")
    with pytest.raises(UserError, match=r"two arms/comparison\.json: cannot be read"):
        write_report(folder)


def test_half_a_result_is_refused(folder):
    write_json(folder / "comparison.json", {})
    with pytest.raises(UserError, match=r"comparison.json: lacks arms, .*; repeat the comparison"):
        write_report(folder)


def test_a_run_that_is_gone_is_told(folder):
    for name in ("sft-seed0", "sft-seed1", "weft-seed1"):
        (folder / name).mkdir()
    said = "Missing now: weft-seed0. The numbers are from when their folders were there."
    assert said in read(folder)[1].texts
    (folder / "weft-seed0").mkdir()
    assert "Missing now" not in read(folder)[0]
