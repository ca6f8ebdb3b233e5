"""Update the tables of benchmarks/results in README.md and docs/.

Usage: python benchmarks/pages.py. Fills blocks from `<!-- table: NAME -->` to `<!-- end -->`."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import tables as benchmarks  # noqa: E402
from experiments import tables as experiments  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
TABLES = benchmarks.TABLES | experiments.TABLES
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(name: str, results: Path = RESULTS) -> str:
    """The table as Markdown. Raises KeyError (unknown name) or FileNotFoundError (no results)."""
    file, render = TABLES[name]
    return render(json.loads((results / f"{file}.json").read_text(encoding="utf-8")))


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with its tables filled in. Raises as `rendered`."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{rendered(match[2], results).strip()}\n\n{match[3]}"

    return _BLOCK.sub(block, page)


def pages() -> list[Path]:
    """Pages that may contain tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Update every page."""
    for path in pages():
        page = path.read_text(encoding="utf-8")
        path.write_text(filled(page), encoding="utf-8")


if __name__ == "__main__":
    main()
