"""Put the tables of benchmarks/results into README.md and docs/.

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
    """The table as Markdown.

    Raises KeyError for an unknown name and FileNotFoundError for missing results."""
    file, render = TABLES[name]
    return render(json.loads((results / f"{file}.json").read_text(encoding="utf-8")))


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with the tables of a folder of results. Raises what `rendered` raises."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{rendered(match[2], results).strip()}\n\n{match[3]}"

    return _BLOCK.sub(block, page)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Rewrite every page."""
    for path in pages():
        page = path.read_text(encoding="utf-8")
        path.write_text(filled(page), encoding="utf-8")


if __name__ == "__main__":
    main()
