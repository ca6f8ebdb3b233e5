"""Insert the tables of benchmarks/results into the pages that show them.

Usage: python benchmarks/pages.py. A page marks a table with `<!-- table: NAME -->` and `<!-- end
-->`; the text between becomes benchmarks/results/NAME.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, results: Path) -> str:
    """The page with its tables from the results.

    Raises FileNotFoundError for a table that does not exist."""

    def block(match: re.Match[str]) -> str:
        table = (results / f"{match[2]}.md").read_text(encoding="utf-8").strip()
        return f"{match[1]}\n{table}\n\n{match[3]}"

    return _BLOCK.sub(block, page)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Rewrite every page."""
    for path in pages():
        page = path.read_text(encoding="utf-8")
        path.write_text(filled(page, ROOT / "benchmarks" / "results"), encoding="utf-8")


if __name__ == "__main__":
    main()
