"""Baseline policies without a model, reported next to every result."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weft_rl.data.prompts import tagged_answer
from weft_rl.data.records import Record
from weft_rl.data.sudoku import fill_rows
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS
from weft_rl.seeding import seed_for


def _random_digits(fields: Mapping[str, Any]) -> str:
    rng = np.random.default_rng(seed_for("random digits", str(fields["puzzle"])))
    return "".join(rng.choice(list(DIGITS), CELLS))


def _last_number(fields: Mapping[str, Any]) -> str:
    numbers = re.findall(r"[0-9][0-9,]*", str(fields["question"])) or [""]
    return numbers[-1].rstrip(",")


def _last_formula(fields: Mapping[str, Any]) -> str:
    return (re.findall(r"\$([^$]+)\$", str(fields["problem"])) or [""])[-1]


def _policy(answer: Callable[[Mapping[str, Any]], str]) -> Callable[[Record], str]:
    return lambda record: tagged_answer("tiny", "", answer(record.fields))


BASELINES: Mapping[str, Mapping[str, Callable[[Record], str]]] = {
    "sudoku": {
        "all ones": _policy(lambda _: "1" * CELLS),
        "random digits": _policy(_random_digits),  # seeded by the puzzle
        "copy of the puzzle": _policy(lambda fields: str(fields["puzzle"])),
        # each row's missing digits in ascending order
        "row filling": _policy(lambda fields: fill_rows(str(fields["puzzle"]))),
    },
    "countdown": {
        "constant expression": _policy(lambda _: "1+2*3"),
        "sum of the numbers": _policy(lambda fields: "+".join(map(str, fields["numbers"]))),
    },
    "gsm8k": {"last number of the question": _policy(_last_number)},
    "math500": {
        "last formula of the question": _policy(lambda f: rf"\boxed{{{_last_formula(f)}}}"),
        # parentheses make it differ from the question's text
        "the same in parentheses": _policy(
            lambda f: rf"\boxed{{({_last_formula(f).strip().rstrip('.')})}}"
        ),
        "always 3": _policy(lambda _: r"\boxed{3}"),  # the most frequent answer of MATH-500
    },
}
