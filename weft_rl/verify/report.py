"""Text of a check: facts by section, then warnings and problems."""

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from textwrap import fill

from weft_rl.io.terminal import one_line

_WIDTH = 80  # fixed, so that pasted texts look alike
_NAMES = 14  # width of the names


class Report:
    """Prints facts at once; collects warnings and problems for the end."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, str]] = []  # section and text
        self.problems: list[tuple[str, str]] = []
        self._section = ""

    def section(self, name: str) -> None:
        """Begin a section."""
        self._section = name
        sys.stdout.write(f"\n{name}\n")

    @contextmanager
    def checking(self, name: str) -> Generator[None]:
        """Begin a section in which a ValueError, such as UserError, is a problem."""
        self.section(name)
        try:
            yield
        except ValueError as error:
            self.problem(str(error))

    def fact(self, name: str, value: object) -> None:
        """Print a named value, wrapped between words: paths stay whole."""
        begin = f"  {name:<{_NAMES}}"
        text = fill(
            str(value),
            _WIDTH,
            initial_indent=begin,
            subsequent_indent=" " * len(begin),
            break_long_words=False,
            break_on_hyphens=False,
        )
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def text(self, name: str, value: str) -> None:
        """Print a named text, quoted; lines end after a blank, so that white space stays."""
        width = _WIDTH - _NAMES - 2
        lines = re.findall(rf".{{1,{width}}}(?:(?<= )|$)|.{{1,{width}}}", quoted(value))
        for number, line in enumerate(lines):
            sys.stdout.write(f"  {'' if number else name:<{_NAMES}}{line}\n")
        sys.stdout.flush()

    def warn(self, text: str) -> None:
        """Add a warning about the current section."""
        self.warnings.append((self._section, text))

    def problem(self, text: str) -> None:
        """Add a defect of the checkpoint in the current section."""
        self.problems.append((self._section, text))

    def finish(self) -> int:
        """Print a line per warning and problem, and the verdict; return the exit status."""
        lines = [f"warning: {section}: {text}" for section, text in self.warnings]
        lines += [f"problem: {section}: {text}" for section, text in self.problems]
        counts = [_count("problem", self.problems), _count("warning", self.warnings)]
        verdict = ", ".join([*([] if self.problems else ["ok"]), *filter(None, counts)])
        # messages of templates and libraries may have several lines
        sys.stdout.write("\n" + "".join(f"{one_line(line)}\n" for line in [*lines, verdict]))
        return 2 if self.problems else 0


def _count(noun: str, found: list[tuple[str, str]]) -> str:
    sections = ", ".join(dict.fromkeys(section for section, _ in found))
    return f"{len(found)} {noun}{'s' * (len(found) > 1)}: {sections}" if found else ""


def quoted(text: str, most: int = 240) -> str:
    """Quote a text on one line, with control characters escaped and a long middle left out."""
    if len(text) > most:
        return f"{text[: most // 2]!r} ... {text[-most // 2 :]!r} ({len(text)} characters)"
    return repr(text)
