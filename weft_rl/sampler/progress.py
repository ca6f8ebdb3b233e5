"""Terminal progress of sampling: a progress bar and a live completion."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from weft_rl.io.log_lines import LogLines, time_left
from weft_rl.io.terminal import Console, escape

if TYPE_CHECKING:
    from weft_rl.sampler.denoise import Step

_MASK = "·"


@contextmanager
def progress_bar(
    label: str, console: Console | None = None, *, log: bool = False
) -> Generator["Callable[[Step], None]"]:
    """Yield an `on_step` for `generate` that shows completions, speed, forwards and time left.

    The default console is stderr. Without a terminal it shows nothing, or log lines if `log`."""
    columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[state]}"))
    console = console or Console(stderr=True)
    if log and not console.is_terminal:
        lines = LogLines(label)
        yield lambda step: lines.update(step.share, state(step))
        return
    # without a terminal, rich would print an empty line
    disable = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        task = progress.add_task(label, total=1, state="")
        yield lambda step: progress.update(task, completed=step.share, state=state(step))


def state(step: "Step") -> str:
    """Describe a step like `3/8, 210 tokens/s, 45 forwards, left 0:00:12`."""
    speed = step.committed / step.seconds if step.seconds else 0.0
    left = time_left(step.seconds, step.share, 1 - step.share)
    finished = f"{step.finished}/{step.total}"
    return f"{finished}, {speed:.0f} tokens/s, {step.forwards} forwards, left {left}"


@contextmanager
def live_completion(
    length: int, decode: Callable[[list[int]], str], console: Console | None = None
) -> Generator["Callable[[Step], None]"]:
    """Yield an `on_step` that shows the first row's completion on a terminal, masks as dots."""
    console = console or Console(stderr=True)
    tokens: list[Any] = [None] * length
    if not console.is_terminal:
        yield lambda step: None
        return
    with Live(Text(""), console=console, transient=True) as live:

        def on_step(step: "Step") -> None:
            for row, position, token in zip(step.rows, step.positions, step.tokens, strict=True):
                if row == 0:
                    tokens[position] = int(token)
            # neighbors together: a character may have several tokens
            runs = groupby(tokens, key=lambda token: token is None)
            parts = [
                _MASK * len([*run]) if is_masked else decode([*run]) for is_masked, run in runs
            ]
            live.update(Text(escape("".join(parts))), refresh=True)

        yield on_step
