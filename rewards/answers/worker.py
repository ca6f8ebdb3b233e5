"""The process in which two LaTeX answers are compared by value; it talks over pipes.

It reads a JSON list a line, the right answer, the given one and the problem, and writes 1 or 0. A
comparison that takes too long ends the process: SIGPROF's default action needs no Python code to
run, so it works in the middle of a power of large integers too, and when the parent is gone."""

import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable

from weft_rl.rewards.answers.compare import read, same
from weft_rl.rewards.answers.copied import is_copied
from weft_rl.rewards.answers.final_answer import normalized
from weft_rl.rewards.answers.scalars import related

# Processor time, so that a loaded machine does not change verdicts; a usual pair takes some ms.
CPU_S = 2.0
# Enough for sympy and its caches, several times what the gold answers of MATH need.
_MEMORY_BYTES = 2 << 30


def same_value(right: str, given: str) -> bool:
    """Whether two answers in final_answer's spelling are equal; no time limit of its own."""
    try:
        return same(*read(normalized(right), normalized(given)), related)
    except RecursionError:  # nested too deep for an answer
        return False


def in_time(decide: Callable[..., bool], *texts: str) -> bool:
    """What a function says; the process ends when it takes too long."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    decided = decide(*texts)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return decided


def main() -> None:
    """Answer pairs until the input ends."""
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    same_value("x+1", "x+2")  # the first parse builds tables for most of a second
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # nobody reads it from here on
    for line in sys.stdin:
        right, given, problem = json.loads(line)
        # a limit each: reading a long problem takes up to a second, once
        verdict = in_time(same_value, right, given)
        if verdict and problem:
            verdict = not in_time(is_copied, given, right, problem)
        sys.stdout.write(f"{verdict:d}\n")
        sys.stdout.flush()
