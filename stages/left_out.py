"""Prints which records a stage leaves out."""

from weft_rl.data.rejects import Rejects
from weft_rl.distributed import rank_and_world
from weft_rl.io.terminal import Console


def print_left_out(title: str, rejects: Rejects) -> None:
    """Print, in the first process, the title and what was left out; nothing if nothing was."""
    lines = rejects.summary()
    if lines and rank_and_world()[0] == 0:
        Console().print("\n".join([title, *lines]), soft_wrap=True)
