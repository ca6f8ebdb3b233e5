"""The process in which two LaTeX answers are compared by value; run as a script, over pipes.

It reads one JSON pair a line, the right answer and the given one, and writes 1 or 0. A comparison
that takes too long ends the process: SIGPROF's default action needs no Python code to run, so it
works in the middle of a power of large integers too, and also when the parent is gone."""

import json
import logging
import os
import resource
import signal
import sys

from math_verify import LatexExtractionConfig, parse, verify

# Processor time, so that a loaded machine does not change verdicts; a usual pair takes some ms.
CPU_S = 2.0
# Enough for sympy and its caches, several times what the gold answers of MATH need.
_MEMORY_BYTES = 2 << 30
_LATEX = [LatexExtractionConfig()]


def same_value(right: str, given: str) -> bool:
    """Whether two LaTeX expressions have the same value; no time limit of its own."""
    parsed = [
        parse(f"${text}$", _LATEX, "no_fallback", "first_match", parsing_timeout=0)
        for text in (right, given)
    ]
    return all(parsed) and bool(verify(parsed[0], parsed[1], timeout_seconds=0))


def main() -> None:
    """Answer pairs until the input ends."""
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    same_value("1", "2")  # the first parse builds tables for most of a second
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # nobody reads it from here on
    for line in sys.stdin:
        right, given = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        verdict = same_value(right, given)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{verdict:d}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
