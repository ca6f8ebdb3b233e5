"""Escaping of untrusted text for terminals, at output only."""

import re
import sys
import unicodedata
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

import rich.console
from rich.segment import Segment
from rich.text import Text

# Control characters except \n and \t, line separators, bidirectional controls, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Beginning of a tqdm write: carriage return, or lines up.
_PROGRESS = re.compile(r"\r(?!\n)|\n*(?:\x1b\[A)+\Z")


def escape(text: str) -> str:
    """Escape control characters as \\x1b, but not line feeds, tabs and printable characters."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def visible(text: str) -> str:
    """Escape characters without a shape, as \\n or \\u200d; a circle carries a leading accent."""
    carrier = "\u25cc" if unicodedata.category(text[:1] or " ") in ("Mn", "Me") else ""
    return carrier + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Escape a text and collapse its white space to single spaces."""
    return " ".join(escape(text).split())


class _Guarded:
    def __init__(self, stream: TextIO, keep: re.Pattern[str] | None) -> None:
        self.rich_proxied_file = stream  # rich's name for it: `Console` escapes by itself
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
    """Escape what the stream's encoding lacks: a log may be ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def guarded() -> Generator[None]:
    """Escape everything written to stdout and stderr, including a final traceback."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Guarded(sys.stdout, None))
    sys.stderr = cast(TextIO, _Guarded(sys.stderr, _PROGRESS))
    try:
        yield
    finally:
        if not isinstance(sys.exc_info()[1], Exception):
            sys.stdout, sys.stderr = before


class Console(rich.console.Console):  # noqa: TID251
    """rich's console for untrusted text: escaped, and never parsed as markup or emoji."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property
    def file(self) -> IO[str]:
        """The stream below every wrapper of stdout or stderr."""
        stream: Any = super().file
        while hasattr(stream, "rich_proxied_file"):
            stream = stream.rich_proxied_file
        return stream

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string after escaping it, so that its width is correct."""
        return super().render_str(self._safe(text), **options)

    def render(
        self, renderable: Any, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render anything with its text escaped; rich's own control codes stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._safe(segment.text), segment.style)

    def _safe(self, text: str) -> str:
        return _encodable(escape(text), self.file)
