"""How the MATH-500 keys are judged: in other spellings, against each other, against near-misses.

Usage: python benchmarks/answers.py. Writes benchmarks/results/answers.json and answers.md, which
docs/tasks.md shows."""

import json
import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path

from rewards.final_answer import normalized
from rewards.math_compare import compact
from rewards.math_worker import same_value

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_NEAR_MISSES = 10_000

SPELLINGS = [
    *("{}", "{}.", "{},", " {} ", "${}$", "$${}$$", r"\({}\)", r"\[{}\]", "= {}", "**{}**"),
    *(r"\boldsymbol{{{}}}", r"\mathbf{{{}}}", r"{{{}}}", r"\displaystyle {}", r"\color{{red}}{}"),
    *(r"\begin{{align*}}{}\end{{align*}}", r"${}$.", r"\textcolor{{blue}}{{{}}}", r"{}\,"),
    *("The answer is {}.", "\u200b{}"),
]


def keys() -> list[str]:
    """The different right answers of MATH-500."""
    return json.loads((ROOT / "tests/fixtures/gold_answers.json").read_text("utf-8"))["math500"]


def judged(given: str, key: str) -> bool:
    """What the reward says, without its process."""
    one, other = normalized(given), normalized(key)
    return compact(one) == compact(other) or same_value(key, given)


def near_misses(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Keys with a digit, a sign, an end, a unit or a base changed, or a number put beside them."""
    draw, answers = random.Random(seed), keys()
    for _ in range(count):
        key = draw.choice(answers)
        digits = [m.start() for m in re.finditer("[0-9]", key)]
        kind = draw.choice(["digit", "sign", "beside", "more", "power"])
        if kind == "digit" and digits:
            at = draw.choice(digits)
            other = draw.choice([d for d in "123456789" if d != key[at]])
            yield key[:at] + other + key[at + 1 :], key
        elif kind == "sign" and key[0] != "-" and key != "0":
            yield f"-({key})" if key[0].isalnum() else f"-{key}", key
        elif kind == "beside":
            yield f"{key} {draw.randint(1, 99)}", key
        elif kind == "more":
            yield f"{key}, {draw.randint(1, 99)}", key
        else:
            yield f"{key}^{{{draw.randint(2, 9)}}}", key


def main() -> None:
    """Judge, print and write."""
    logging.disable(logging.CRITICAL)
    answers = keys()
    refused = [(s, k) for k in answers for s in SPELLINGS if not judged(s.format(k), k)]
    equal = [(a, b) for a in answers for b in answers if a < b and judged(a, b)]
    paid = [pair for pair in near_misses(_NEAR_MISSES) if judged(*pair)]
    result = {
        "keys": len(answers),
        "spellings": {"judged": len(answers) * len(SPELLINGS), "wrong": refused},
        "pairs": {"judged": len(answers) * (len(answers) - 1) // 2, "equal": equal},
        "near_misses": {"judged": _NEAR_MISSES, "right": paid},
    }
    (RESULTS / "answers.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [
        f"| a key in {len(SPELLINGS)} spellings | {result['spellings']['judged']:,} "
        f"| {len(refused)} wrong |",
        f"| two different keys | {result['pairs']['judged']:,} | {len(equal)} equal |",
        f"| a key changed into a near-miss | {_NEAR_MISSES:,} | {len(paid)} right |",
    ]
    table = "\n".join(["| answer | judged | verdicts to look at |", "|---|---|---|", *rows])
    (RESULTS / "answers.md").write_text(table + "\n")
    print(json.dumps(result, indent=1)[:6000])


if __name__ == "__main__":
    main()
