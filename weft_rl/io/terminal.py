"""Text that others wrote, made safe for a terminal: names, values and completions in any output.

Escaping happens where text leaves the program and nowhere else: `guarded` wraps standard output and
standard error of a command, and `Console` is rich's with the same rule."""

import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

import rich.console
from rich.segment import Segment
from rich.text import Text

# Control characters except line feed and tab, the line separators of Unicode, the characters that
# reorder text (bidirectional controls), and halves of surrogate pairs, which cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What progress bars of libraries (tqdm) begin a write with: back to the line's start, or lines up.
_PROGRESS = re.compile(r"\r(?!\n)|\n*(?:\x1b\[A)+\Z")


def escape(text: str) -> str:
    """The text with every character that could act on a terminal as its escape, such as \\x1b.

    Line feeds and tabs stay, and so does every printable character of any script."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """The escaped text on a single line: any run of spaces and line feeds becomes one space."""
    return " ".join(escape(text).split())


class _Guarded:
    """A text stream whose writes are escaped; everything else is the stream's own."""

    def __init__(self, stream: TextIO, keep: re.Pattern[str] | None) -> None:
        # under this name rich looks for the stream itself: `Console` escapes its text
        self.rich_proxied_file = stream
        self._keep = keep

    def write(self, text: str) -> int:
        kept = self._keep.match(text) if self._keep else None
        start = kept.end() if kept else 0
        safe = _encodable(escape(text[start:]), self.rich_proxied_file)
        self.rich_proxied_file.write(text[:start] + safe)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def _encodable(text: str, stream: Any) -> str:
    """The text with escapes for what the stream's encoding lacks: a log may be ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def guarded() -> Generator[None]:
    """Escape what is written to standard output and standard error, warnings and logs included.

    After an exception the streams stay guarded: the traceback that the interpreter prints may hold
    the same text."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Guarded(sys.stdout, None))
    sys.stderr = cast(TextIO, _Guarded(sys.stderr, _PROGRESS))
    try:
        yield
    finally:
        if not isinstance(sys.exc_info()[1], Exception):
            sys.stdout, sys.stderr = before


class Console(rich.console.Console):  # noqa: TID251
    """rich's console for text that others wrote: escaped, and never read as markup or emoji."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property
    def file(self) -> IO[str]:
        """The stream itself, below every wrapper of standard output or standard error."""
        stream: Any = super().file
        while hasattr(stream, "rich_proxied_file"):
            stream = stream.rich_proxied_file
        return stream

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string into rich's text; its width is that of the escaped string."""
        return super().render_str(self._shown(text), **options)

    def render(
        self, renderable: Any, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render anything, escaping its text; what rich itself sends to the terminal stays."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(self._shown(segment.text), segment.style)

    def _shown(self, text: str) -> str:
        return _encodable(escape(text), self.file)
