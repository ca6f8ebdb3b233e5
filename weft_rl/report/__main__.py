"""`report`: a self-contained HTML page of a run or a comparison."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option, require
from weft_rl.config.load import parse_options
from weft_rl.report.run_report import write_report


@dataclass(frozen=True)
class ReportConfig(Block):
    """Options of `report`."""

    path: str = field(metadata=about("directory of a run or a comparison"))
    out: str | None = option(None, "HTML file; null: report.html in the directory")

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.out is None or self.out.endswith(".html")
        require(fits, "out", self.out, "must end in .html")


def main(argv: Sequence[str]) -> int:
    """Write the report of a directory, print the path of the page and return the exit status."""
    description = "Write the HTML report of a run or a comparison, and print its path."
    config = parse_options(
        ReportConfig, argv, command="weft_rl.report", description=description, positional="path"
    )
    out = None if config.out is None else Path(config.out)
    sys.stdout.write(f"{write_report(Path(config.path), out)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.report", main, sys.argv[1:]))
