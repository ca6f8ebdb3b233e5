"""Verdicts on MATH-500 answers: equivalent spellings, other keys, near-misses.

Usage: python benchmarks/answers.py. Writes benchmarks/results/answers.json."""

import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from weft_rl.rewards.math500 import is_right  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
_NEAR_MISSES = 10_000

SPELLINGS = [
    *("{}.", "{},", " {} ", "${}$", "$${}$$", r"\({}\)", r"\[{}\]", "= {}", "**{}**", "`{}`"),
    *(r"\boldsymbol{{{}}}", r"\mathbf{{{}}}", r"{{{}}}", r"\displaystyle {}", r"\color{{red}}{}"),
    *(r"\begin{{align*}}{}\end{{align*}}", r"${}$.", r"\textcolor{{blue}}{{{}}}"),
    *("The answer is {}.", "\u200b{}"),
]
_UNITS = ["cm", "m", "km", "inches", "feet", "grams", "hours", "minutes", "dollars", "cents"]
_PLAIN = re.compile(r"-?[0-9]{1,6}")


def keys() -> list[str]:
    """Distinct correct answers of MATH-500."""
    return json.loads((ROOT / "tests/fixtures/gold_answers.json").read_text("utf-8"))["math500"]


def spelled() -> Iterator[tuple[str, str]]:
    """Yield every key in every equivalent spelling."""
    return ((spelling.format(key), key) for key in keys() for spelling in SPELLINGS)


def _digit(key: str, draw: random.Random) -> tuple[str, str] | None:
    places = [m.start() for m in re.finditer("[0-9]", key)]
    if not places:
        return None
    at = draw.choice(places)
    other = draw.choice([digit for digit in "123456789" if digit != key[at]])
    return key[:at] + other + key[at + 1 :], key


def _sign(key: str, draw: random.Random) -> tuple[str, str] | None:
    return (str(-int(key)), key) if _PLAIN.fullmatch(key) and int(key) else None


def _beside(key: str, draw: random.Random) -> tuple[str, str] | None:
    gap = draw.choice([" ", r"\ ", r"\quad ", r"\text{ }"])
    number = draw.randint(1, 99)
    return (f"{key}{gap}{number}" if draw.random() < 0.5 else f"{number}{gap}{key}"), key


def _sum_beside(key: str, draw: random.Random) -> tuple[str, str] | None:
    if not _PLAIN.fullmatch(key) or int(key) < 2:
        return None
    part = draw.randint(1, int(key) - 1)
    return f"{part} {int(key) - part}", key


def _more(key: str, draw: random.Random) -> tuple[str, str] | None:
    return f"{key}, {draw.randint(1, 99)}", key


def _unit(key: str, draw: random.Random) -> tuple[str, str] | None:
    if not _PLAIN.fullmatch(key):
        return None
    one, other = draw.sample(_UNITS, 2)
    if draw.random() < 0.3:
        return rf"{key}\text{{ {one}}}^2", rf"{key}\text{{ {one}}}"
    return draw.choice([rf"{key}\text{{ {one}}}", f"{key} {one}"]), rf"{key}\text{{ {other}}}"


def _base(key: str, draw: random.Random) -> tuple[str, str] | None:
    if not _PLAIN.fullmatch(key) or not key.isdecimal():
        return None
    one, other = draw.sample(range(2, 17), 2)
    return f"{key}_{{{one}}}", f"{key}_{{{other}}}"


def _end(key: str, draw: random.Random) -> tuple[str, str] | None:
    if not _PLAIN.fullmatch(key):
        return None
    ends = f"{key},{int(key) + draw.randint(1, 99)}"
    one, other = draw.sample(["({})", "[{})", "({}]", "[{}]"], 2)
    return one.format(ends), other.format(ends)


CHANGES: dict[str, Callable[[str, random.Random], tuple[str, str] | None]] = {
    "another digit": _digit,
    "the other sign": _sign,
    "the key and another number": _beside,
    "two parts that add up to it": _sum_beside,
    "one element more": _more,
    "another unit": _unit,
    "another base": _base,
    "other brackets": _end,
}


def near_misses(count: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """Yield the kind of change, the resulting wrong answer, and the key."""
    draw, answers, made = random.Random(seed), keys(), 0
    while made < count:
        kind = draw.choice([*CHANGES])
        if pair := CHANGES[kind](draw.choice(answers), draw):
            made += 1
            yield kind, *pair


def judged(pairs: Iterable[tuple[str, str]], name: str) -> list[bool]:
    """Return the reward's verdicts; print progress to standard error."""
    verdicts = []
    for given, key in pairs:
        verdicts.append(is_right(given, key))
        if len(verdicts) % 1000 == 0:
            print(name, len(verdicts), file=sys.stderr, flush=True)
    return verdicts


def main() -> None:
    """Judge the answers; write benchmarks/results/answers.json."""
    answers = keys()
    same = [*spelled()]
    refused = [pair for pair, ok in zip(same, judged(same, "spellings"), strict=True) if not ok]
    pairs = [(a, b) for a in answers for b in answers if a < b]
    equal = [pair for pair, ok in zip(pairs, judged(pairs, "pairs"), strict=True) if ok]
    misses = [*near_misses(_NEAR_MISSES)]
    verdicts = judged(((given, key) for _, given, key in misses), "near-misses")
    paid = [miss for miss, ok in zip(misses, verdicts, strict=True) if ok]
    counts = {kind: sum(miss[0] == kind for miss in misses) for kind in CHANGES}
    result = {
        "keys": len(answers),
        "spellings": {"judged": len(same), "wrong": refused},
        "pairs": {"judged": len(pairs), "right": equal},
        "near_misses": {"judged": counts, "right": paid},
    }
    (RESULTS / "answers.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1)[:6000])


if __name__ == "__main__":
    main()
