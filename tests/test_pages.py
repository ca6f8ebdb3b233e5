"""README.md and docs/ show the results, name what exists, and stay short."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from weft_rl.pipeline.run import main as run

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "benchmarks" / "pages.py"))
PAGES = TOOL["pages"]()
OPTIONS = (ROOT / "tests" / "fixtures" / "options.txt").read_text(encoding="utf-8")
BLOCKS = "base|cold_start|rl|eval|sampler|memory|reliability"
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def test_a_block_is_filled_from_json(tmp_path, monkeypatch):
    monkeypatch.setitem(TOOL["TABLES"], "some", ("file", lambda result: f"|{result['a']}|\n"))
    (tmp_path / "file.json").write_text('{"a": 1.5}')
    text = "before\n<!-- table: some -->\nold\n<!-- end -->\nafter\n"
    filled = "before\n<!-- table: some -->\n\n|1.5|\n\n<!-- end -->\nafter\n"
    assert TOOL["filled"](text, tmp_path) == filled
    assert TOOL["filled"](filled, tmp_path) == filled
    with pytest.raises(FileNotFoundError):
        TOOL["filled"](text, tmp_path / "none")


@page
def test_a_page_shows_the_results(path):
    text = path.read_text(encoding="utf-8")
    assert TOOL["filled"](text) == text


def test_every_table_is_shown():
    texts = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert set(re.findall(r"<!-- table: (\w+) -->", texts)) == set(TOOL["TABLES"])


def saved_rows(name):
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def test_the_planned_numbers_are_the_planners():
    assert runpy.run_path(str(ROOT / "benchmarks" / "plan.py"))["rows"]() == saved_rows("plan")


@pytest.mark.parametrize("task", ["sudoku", "countdown"])
def test_the_policies_score_what_the_page_says(task):
    rows = runpy.run_path(str(ROOT / "benchmarks" / "trivial_policies.py"))["rows"]
    assert rows(task, "published") == [row for row in saved_rows("policies") if row["task"] == task]


@page
def test_links_lead_to_files_and_headings(path):
    for link in re.findall(r"\]\((?!https?:)([^)]+)", path.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = path.parent / name
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text(encoding="utf-8"))
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, link


@page
def test_named_options_exist(path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{BLOCKS})\.[a-z_0-9.]*[a-z_0-9])", text))
    known = re.findall(r"(?m)^([\w.]+):", OPTIONS)
    parts = {key[: match.end()] for key in known for match in re.finditer(r"[^.]+", key)}
    assert named <= parts | {"rl.preset", "eval.json"}, named - parts


@page
def test_named_files_exist(path):
    text = path.read_text(encoding="utf-8")
    folders = "weft_rl|stages|rewards|configs|tests|benchmarks|experiments|examples|docs"
    named = set(re.findall(rf"`((?:{folders})/[\w./]+)`", text)) - {"weft_rl/families/third.py"}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_commands_of_the_readme_are_valid(capsys):
    commands = re.findall(
        r"(?m)(?:weft-rl run|-m weft_rl\.pipeline) ([^#\n`]+)", PAGES[0].read_text(encoding="utf-8")
    )
    assert len(commands) > 3
    for words in commands:
        with pytest.raises(SystemExit) as stop:
            run([*shlex.split(words), "--print-config"])
        assert not stop.value.code, words
    assert "model: llada_8b" in capsys.readouterr().out


def test_the_file_tree_names_every_folder():
    tree = re.search(r"(?s)## File tree\n\n```\n(.*?)```", PAGES[0].read_text(encoding="utf-8"))[1]
    inner = [each.name for each in (ROOT / "weft_rl").iterdir() if each.is_dir()]
    for name in {*inner, "docs", "examples", "benchmarks", "experiments", "tests"} - {
        "__pycache__"
    }:
        assert re.search(rf"(?m)(^|[ ,]){re.escape(name)}/", tree), name
    for name in re.findall(r"(?m)^  (\w+)/", tree):
        assert (ROOT / "weft_rl" / name).is_dir(), name


def test_the_pages_stay_short():
    words = {path.name: len(path.read_text(encoding="utf-8").split()) for path in PAGES}
    assert words.pop("README.md") <= 900
    assert sum(words.values()) <= 6000
