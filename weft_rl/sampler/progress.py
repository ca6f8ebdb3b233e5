"""Sampling as it goes on, on a terminal: a progress bar, and a completion filling up."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from weft_rl.io.log_lines import LogLines
from weft_rl.io.terminal import Console, escape

if TYPE_CHECKING:
    from weft_rl.sampler.denoise import Step

# Stands where nothing is known yet.
_MASK = "·"


@contextmanager
def progress_bar(
    label: str, console: Console | None = None, *, log: bool = False
) -> Generator["Callable[[Step], None]"]:
    """An `on_step` for `generate` that keeps a line: completions, speed, forwards, time left.

    On stderr unless a console is given; the line goes away at the end, and is only there on a
    terminal. log: elsewhere print lines now and then, which stay."""
    columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[state]}"))
    shown = Console(stderr=True) if console is None else console
    # rich leaves an empty line where there is no terminal
    quiet = not shown.is_terminal
    if quiet and log:
        lines = LogLines(label)
        yield lambda step: lines.told(step.share, state(step))
        return
    with Progress(*columns, console=shown, transient=True, disable=quiet) as progress:
        task = progress.add_task(label, total=1, state="")
        yield lambda step: progress.update(task, completed=step.share, state=state(step))


def state(step: "Step") -> str:
    """A step in words: `3/8, 210 tokens/s, 45 forwards, left 0:00:12`."""
    speed = step.committed / step.seconds if step.seconds else 0.0
    left = round(step.seconds * (1 / step.share - 1)) if step.share else 0
    return (
        f"{step.finished}/{step.total}, {speed:.0f} tokens/s, {step.forwards} forwards, "
        f"left {timedelta(seconds=left)}"
    )


@contextmanager
def filling_up(
    length: int, decode: Callable[[list[int]], str], console: Console | None = None
) -> Generator["Callable[[Step], None]"]:
    """An `on_step` that shows the first row's completion of `length` tokens, masks as dots.

    On stderr unless a console is given, and only on a terminal."""
    words = [_MASK] * length
    shown = Console(stderr=True) if console is None else console
    if not shown.is_terminal:
        yield lambda step: None
        return
    with Live(Text(""), console=shown, transient=True) as live:

        def on_step(step: "Step") -> None:
            places = zip(step.rows, step.positions, step.tokens, strict=True)
            for row, position, token in places:
                if row == 0:
                    words[position] = decode([int(token)])
            live.update(Text(escape("".join(words))), refresh=True)

        yield on_step
