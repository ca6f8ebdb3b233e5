"""The page of a comparison, from hand-made files."""

import shlex

import pytest
import yaml
from html_page import Page
from report_folders import comparison_folder, write_rewards

from weft_rl.compare import read_options
from weft_rl.errors import UserError
from weft_rl.report.run_report import write_report

ARGV = ["arms=[sft,weft]", "seeds=[0,1]", "rl.max_steps=6"]


@pytest.fixture
def folder(tmp_path):
    return comparison_folder(tmp_path / "two arms")


def read(folder):
    text = write_report(folder).read_text()
    return text, Page(text)


def test_tables(folder):
    text, page = read(folder)
    # every pair of runs and records differs by .25: 4.303 * .25 / 3 for two records
    differences, recipes, scores = page.tables
    assert [row[0] for row in recipes[1:]] == ["SFT", "WeFT"]
    assert differences[1][1] == "+25.0 [-10.9, 60.9] not distinguishable"
    assert ["WeFT", "then RL", "75.0 [19.8, 97.3]", "75.0, 75.0"] in scores
    assert scores[-1] == ["no model", "all <ones>", "25.0 [0.0, 50.0]", ""]
    assert "<ones>" not in text


def test_differing_options_are_refused(folder):
    for name, rate in (("sft-seed0", 1e-5), ("weft-seed0", 2e-5)):
        (folder / name).mkdir()
        config = {"stages": [name], "cold_start": {"learning_rate": rate, "epochs": 5}}
        (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"weft-seed0: .*cold_start.learning_rate"):
        write_report(folder)


def test_curves_and_links_of_the_runs_so_far(folder):
    assert "sft-seed0: no report yet" in read(folder)[1].texts
    for name, scale in (("sft-seed0", 0.1), ("sft-seed1", 0.3), ("weft-seed1", 0.4)):
        # seed 0 has more steps
        steps = (1, 2, 3) if name == "sft-seed0" else (1, 2)
        write_rewards(folder / name, {step: scale * step for step in steps})
    (folder / "weft-seed1" / "report.html").write_text("")
    text, page = read(folder)
    # at step 2: (.1 + .3) / 2 * 2 = .4, and .4 * 2 = .8
    assert (
        'aria-label="reward in RL: SFT, mean of 2 runs, ends at 0.400; WeFT, ends at 0.800"'
    ) in text
    assert {"SFT, mean of 2 runs", "WeFT"} <= set(page.texts)
    assert [link for link in page.links if not link.startswith("#")] == ["weft-seed1/report.html"]


def test_a_page_elsewhere_links_to_the_runs(folder, tmp_path):
    write_rewards(folder / "weft-seed1", {1: 0.5})
    (folder / "weft-seed1" / "report.html").write_text("")
    out = tmp_path / "pages" / "both.html"
    out.parent.mkdir()
    assert write_report(folder, out) == out
    assert 'href="../two%20arms/weft-seed1/report.html"' in out.read_text()
    assert not (folder / "report.html").exists()


def test_the_command_repeats_the_comparison(folder):
    options, config, _ = read_options(ARGV)
    run = {"model": "tiny", "rl": {"max_steps": 6}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"run": run, "versions": {"torch": "2"}}))
    _, page = read(folder)
    (line,) = [text for text in page.texts if text.startswith("python -m weft_rl.compare")]
    argv = shlex.split(line)[3:]
    assert argv == [*ARGV[:2], "model=tiny", "rl.max_steps=6", "out=runs/again"]
    again, same, _ = read_options(argv)
    assert (again.arms, again.seeds, same) == (options.arms, options.seeds, config)


@pytest.mark.parametrize("text", ["{", "{}"])
def test_damaged_results_are_named(folder, text):
    (folder / "comparison.json").write_text(text)
    with pytest.raises(UserError, match=r"two arms/comparison\.json: "):
        write_report(folder)
