"""A task of one's own, sorting digits: weft-rl run task=examples/own_task.py"""

from collections import Counter

import numpy as np

from weft_rl.data.tasks import Task
from weft_rl.rewards.extract import answer_text
from weft_rl.seeding import seed_for


def fields(row):
    """A row of a file, such as {"digits": "3142"}, to a record's fields."""
    digits = row.get("digits")
    if not isinstance(digits, str) or not digits.isascii() or not digits.isdecimal():
        raise ValueError("digits must be a text of digits")
    return {"digits": digits}


def places(completion, digits, **_):
    """Share of digits in their place; 0 unless the answer has the same digits as the question."""
    answer = answer_text(completion) or ""
    if not digits or Counter(answer) != Counter(digits):
        return 0.0
    return sum(a == b for a, b in zip(answer, sorted(digits), strict=True)) / len(digits)


def exact(completion, digits, **_):
    """1 if the answer is the digits in order, else 0."""
    return float(places(completion, digits) == 1)


def generate(split, count, seed):
    """Distinct texts of 3 to 6 digits; those whose sum 5 divides are for testing."""
    rng, found = np.random.default_rng(seed_for(seed, "sorting", split)), {}
    while len(found) < count:
        digits = "".join(map(str, rng.integers(0, 10, rng.integers(3, 7))))
        if (sum(map(int, digits)) % 5 == 0) == (split == "test"):
            found[digits] = {"digits": digits}
    return list(found.values())


TASK = Task(
    prompt=lambda fields: f"Sort: {fields['digits']}",
    fields=fields,
    training={"places": places},
    evaluation={"exact": exact, "places": places},
    generate=generate,
)
