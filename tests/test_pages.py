"""The pages show the tables that the benchmarks wrote, and their links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TOOL = runpy.run_path(str(ROOT / "benchmarks" / "pages.py"))


def test_a_table_is_put_in_its_place(tmp_path):
    (tmp_path / "some.md").write_text("| a |\n")
    page = "before\n<!-- table: some -->\nold\n<!-- end -->\nafter\n"
    wanted = "before\n<!-- table: some -->\n\n| a |\n\n<!-- end -->\nafter\n"
    assert TOOL["filled"](page, tmp_path) == wanted
    assert TOOL["filled"](wanted, tmp_path) == wanted
    with pytest.raises(FileNotFoundError):
        TOOL["filled"]("<!-- table: none -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_page_shows_what_was_measured(path):
    page = path.read_text(encoding="utf-8")
    assert TOOL["filled"](page, ROOT / "benchmarks" / "results") == page


def test_no_measured_table_of_rl_is_a_copy():
    """One that stands beside the marks keeps its numbers when a benchmark is run again."""
    tables = (ROOT / "benchmarks" / "results").glob("*.md")
    heads = [table.read_text(encoding="utf-8").splitlines()[0] for table in tables]
    unmarked = TOOL["_BLOCK"].sub("", (ROOT / "docs" / "rl.md").read_text(encoding="utf-8"))
    assert [head for head in heads if head.startswith("|") and f"\n{head}\n" in unmarked] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_local_link_leads_to_a_file(path):
    page = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page)
    assert [link for link in links if not (path.parent / link).exists()] == []
