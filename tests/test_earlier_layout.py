"""Run directories that were written before options and files got their present names."""

import json
import shutil
from pathlib import Path

import pytest

from weft_rl.cli import execute
from weft_rl.compare import main as compare
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.plot.__main__ import main as plot
from weft_rl.report.__main__ import main as report
from weft_rl.runs.folder import read_config
from weft_rl.runs.renamed import RENAMED

EARLIER = Path(__file__).parent / "fixtures" / "earlier_layout"
# What the stored runs were started with, by today's keys.
OPTIONS = (
    *("base.max_steps=20", "base.batch_size=16", "base.examples=200", "base.save_steps=20"),
    *("cold_start.records=8", "cold_start.epochs=2", "cold_start.logging_steps=2"),
    *("rl.max_steps=4", "rl.num_prompts=2", "rl.num_generations=2", "rl.watch.logging_steps=1"),
    "eval.num_records=8",
)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    for path in sorted(tmp_path.rglob("stages.json")):
        for checkpoint in json.loads(path.read_text()).values():
            (path.parent / checkpoint).mkdir(parents=True, exist_ok=True)
        (path.parent / "report.html").touch()  # the sign of a finished run
    return tmp_path


def kept(new, old):
    """Whether every value is the stored one; values that are no longer written are left out."""
    if isinstance(new, dict):
        return all(kept(value, old[key]) for key, value in new.items())
    if isinstance(new, list):
        return len(new) == len(old) and all(map(kept, new, old))
    return new == (pytest.approx(old) if isinstance(old, float) else old)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words", "output", "texts"),
    [
        # the heat map has its earlier file name
        (report, ["run"], "run/report.html", ["gspo", "entropy_heatmap"]),
        (report, ["comparison"], "comparison/report.html", ["WeFT"]),
        (plot, ["run", "out=curves.svg"], "curves.svg", ["reward, run"]),
    ],
)
def test_reports_and_plots(folder, monkeypatch, capsys, command, words, output, texts):
    monkeypatch.chdir(folder)
    assert execute("it", command, words) == 0
    assert capsys.readouterr().out == f"{output}\n"
    written = (folder / output).read_text()
    assert all(text in written for text in texts)


@pytest.mark.slow
def test_compare_reads_finished_runs_and_trains_nothing(folder):
    place = folder / "comparison"
    stored = json.loads((place / "comparison.json").read_text())
    (place / "comparison.json").unlink()
    words = ["arms=[sft,weft]", "seeds=[0,1]", *OPTIONS, f"out={place}"]
    assert execute("it", compare, words) == 0
    assert kept(json.loads((place / "comparison.json").read_text()), stored)
    assert not [*place.glob("logs/*.log")]


def test_settings_have_todays_keys():
    settings = read_config(EARLIER / "run")
    assert settings["rl"]["loss_type"] == "gspo"
    assert settings["rl"]["masks"]["share_group_masks"] is False
    assert settings["memory"]["dtype"] == "float32"
    assert settings["cold_start"]["entropy_pass"]["rates"] == "fresh"
    assert "estimate" not in settings["cold_start"]


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_an_error_that_names_the_new_one(old):
    with pytest.raises(UserError) as caught:
        load_run_config([f"{old}=1"], command="it")
    message = str(caught.value)
    assert message.startswith(f"{old}=1: ")
    assert f" {RENAMED[old]}=1" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rl.masks.per=row", "rl.masks.share_group_masks=false"),
        ("rl.masks.per=group", "rl.masks.share_group_masks=true"),
        ("rl.loss.kl=sequence", "rl.loss.kl_estimator=k2_sequence"),
        ("memory.weights=bfloat16", "memory.dtype=bfloat16"),
        ("memory.weights=nf4", "memory.quantization=nf4"),
        ("rl.objective=wd1", "rl.loss_type=wd1"),
    ],
)
def test_the_new_option_has_the_value_that_means_the_same(old, new):
    with pytest.raises(UserError) as caught:
        load_run_config([old], command="it")
    assert new in str(caught.value).split()
    load_run_config([new, "cold_start.lora.r=2", "rl.lora.r=2"], command="it")
