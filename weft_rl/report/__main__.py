"""`report`: a self-contained HTML page of a run or a comparison."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weft_rl.cli import execute
from weft_rl.config.fields import Block, about
from weft_rl.config.load import parse_options
from weft_rl.report.run_report import write_report


@dataclass(frozen=True)
class ReportConfig(Block):
    """Options of `report`."""

    path: str = field(metadata=about("directory of a run or a comparison"))


def main(argv: Sequence[str]) -> int:
    """Write the report of the given directory, print its path and return the exit status."""
    description = "HTML report of a run or a comparison, written into its directory."
    config = parse_options(
        ReportConfig, argv, command="weft_rl.report", description=description, positional="path"
    )
    sys.stdout.write(f"{write_report(Path(config.path))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.report", main, sys.argv[1:]))
