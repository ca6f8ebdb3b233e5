"""The process in which two LaTeX answers are compared by value; run as a script, over pipes.

It reads a JSON list a line, the right answer, the given one and the problem, and writes 1 or 0. A comparison
that takes too long ends the process: SIGPROF's default action needs no Python code to run, so it
works in the middle of a power of large integers too, and also when the parent is gone."""

import json
import logging
import os
import resource
import signal
import sys

from math_verify import verify

from rewards.math_form import is_copied, parsed

# Processor time, so that a loaded machine does not change verdicts; a usual pair takes some ms.
CPU_S = 2.0
# Enough for sympy and its caches, several times what the gold answers of MATH need.
_MEMORY_BYTES = 2 << 30


def is_solved(right: str, given: str, problem: str) -> bool:
    """Whether two LaTeX expressions have the same value, the given one not being the problem's own
    formula; no time limit of its own."""
    one, other = parsed(right), parsed(given)
    same = one and other and verify(one, other, timeout_seconds=0)
    return bool(same) and not (problem and is_copied(given, right, problem))


def main() -> None:
    """Answer pairs until the input ends."""
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    is_solved("1", "2", "")  # the first parse builds tables for most of a second
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # nobody reads it from here on
    for line in sys.stdin:
        right, given, problem = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        verdict = is_solved(right, given, problem)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{verdict:d}\n")
        sys.stdout.flush()
