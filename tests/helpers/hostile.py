"""Seeded grammar of completions that try to break, stall or game a reward."""

import random
import re
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

from weft_rl.rewards import format
from weft_rl.rewards.d1_scorer import evaluation as d1
from weft_rl.rewards.extract import answer_text
from weft_rl.rewards.registry import REWARDS, training
from weft_rl.rewards.sudoku import answer_digits

PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"
NUMBERS, TARGET = [2, 3, 4], 5
# Correct answers: outside the answer's place they must earn no reward.
RIGHT = (SOLUTION, "2*4-3", "1764")
# Record of each task; no prompt gives the answers 1764 and (x+1)^2.
RECORDS = {
    "sudoku": {"puzzle": PUZZLE, "solution": SOLUTION},
    "countdown": {"numbers": NUMBERS, "target": TARGET},
    "gsm8k": {"answer": "#### 1764"},
    "math500": {"answer": r"\frac{1764}{5}", "problem": "Compute $1764 : 5$."},
}
TAGS = [
    *("<answer>", "</answer>", "<reasoning>", "</reasoning>", "<answer", "answer>", "</answer"),
    *("<|eot_id|>", "<|endoftext|>", "\\boxed{", "\\boxed ", "\\fbox{", "}", "{", "```", "$"),
]
# foreign digits, minus signs, operators, and control characters
ODD = [*"\u0663\uff13\u00b2\u00bd\u2212\u2013\u00d7\u00f7\u00b7\u2044\0\ud800\u202e\u200b\x85"]
PLAIN = [
    *("0", "1", "2", "3", "4", "16", "99", "+", "-", "*", "/", "**", "//", "%", "^", "!", ".", ","),
    *("=", "(", ")", " ", "\n", "x", "e", "nan", "inf", "None", "__import__('os')", "\\frac", "_"),
    *("\\times", "\\div", "\\cdot", "\\sqrt", "\\text{", "\\left(", "\\right)", "\\infty"),
]
LONG = [
    *("9**9**9", "9^{9^{9}}", "(" * 100_000, "(" * 100_000 + "1" + ")" * 100_000, "9" * 1_000_000),
    *("1/0", "-" * 100_000, "\\frac" * 50_000, "{" * 300_000, "\\boxed{" * 40_000, " " * 1_000_000),
    *("1234 " * 200_000, "<answer>" * 50_000, "<answer></answer>" * 30_000, "=" * 300_000),
    *("\0" * 300_000, "\ud800" * 300_000, "1 + " * 100_000, "```1" * 100_000, "٣" * 300_000),
]


LIMIT_S = 0.010


def cheap_rewards() -> Iterator[tuple[Callable[..., float], dict]]:
    for task, record in RECORDS.items():
        if task != "math500":
            terms = [*training(task, "d1").values(), *training(task).values()]
            for reward in {term.reward for term in terms} | {*REWARDS[task].evaluation.values()}:
                yield reward, record
    yield format.boxed_answer, {}
    yield d1.sudoku, RECORDS["sudoku"]
    yield d1.countdown, RECORDS["countdown"]
    yield d1.gsm8k, {"answer": 1764.0}
    yield d1.math500, {"answer": RECORDS["math500"]["answer"]}


def timed(reward: Callable[..., float], text: str, record: dict) -> tuple[float, float]:
    """Value and CPU time, best of two tries."""
    start = time.process_time()
    value = reward(text, **record)
    seconds = time.process_time() - start
    if seconds > LIMIT_S:
        start = time.process_time()
        reward(text, **record)
        seconds = min(seconds, time.process_time() - start)
    return value, seconds


def expression(draw: random.Random, depth: int = 4) -> str:
    """Mostly valid arithmetic, seldom over the given numbers."""
    if depth == 0 or draw.random() < 0.3:
        return str(draw.choice([0, 1, 2, 3, 4, 7, 10**9, 12345]))
    left, right = expression(draw, depth - 1), expression(draw, depth - 1)
    form = draw.choice(
        ["{}+{}", "{}-{}", "{}*{}", "{}/{}", "({}+{})", "-({}-{})", "{}**{}", r"\frac{{{}}}{{{}}}"]
    )
    return form.format(left, right)


def digits(draw: random.Random) -> str:
    if draw.random() < 0.5:
        return "".join(draw.choices("1234", k=draw.choice([15, 16, 16, 17])))
    first, second, third = draw.sample("234", 3)
    return f"{first}{draw.choice('+-*/')}{second}{draw.choice('+-*/')}{third}"


def piece(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.3:
        return "".join(draw.choices(PLAIN + ODD, k=draw.randint(1, 12)))
    if kind < 0.5:
        return expression(draw)
    if kind < 0.97:
        return draw.choice(TAGS)
    return draw.choice(LONG) if kind < 0.973 else draw.choice(LONG)[:500]


def completions(seed: int, count: int) -> Iterator[str]:
    """Texts of any form; a tenth contain correct answers outside the answer's place."""
    draw = random.Random(seed)
    for _ in range(count):
        text = "".join(piece(draw) for _ in range(draw.randint(0, 10)))
        if draw.random() < 0.4:
            inside = draw.choice([expression(draw), piece(draw), digits(draw)])
            text += draw.choice(["<answer>{}</answer>", "<answer>{}", "\\boxed{{{}}}"]).format(
                inside
            )
        if draw.random() < 0.1:
            pasted = " ".join(draw.sample(RIGHT, 3))
            wrong = draw.choice(["0", "1111", "I am not sure", "2*4-3+0", "17 or 1764"])
            text = f"<reasoning>{pasted}{text}</reasoning><answer>{wrong}</answer>"
        yield text


def unearned(text: str) -> str:
    """Describe unearned reward; checked independently by Python's eval and string comparison."""
    answer = answer_text(text) or ""
    paid = {
        task: REWARDS[task].evaluation["exact"](text, **RECORDS[task])
        for task in ("countdown", "gsm8k", "sudoku")
    }
    if paid["countdown"] and not _solves(answer.partition("=")[0]):
        return "countdown"
    bare = "".join(answer.split())
    if paid["gsm8k"] and "1764" not in bare:
        return "gsm8k"
    if paid["sudoku"] and SOLUTION not in bare:
        return "sudoku"
    # cells are rewarded one by one, at most as many as match
    same = sum(a == b for a, b in zip((answer_digits(text) or "")[:16], SOLUTION, strict=False))
    share = REWARDS["sudoku"].evaluation["cell_accuracy"](text, **RECORDS["sudoku"])
    return "cells" if share * PUZZLE.count("0") > same else ""


_WRITTEN = {"\\times": "*", "\\cdot": "*", "\\div": "/", "\u00d7": "*", "\u00b7": "*"}
_WRITTEN |= {"\u00f7": "/", "\u2212": "-", "\u2013": "-", "\\left": "", "\\right": "", "$": ""}


def _solves(expression: str) -> bool:
    for written, plain in _WRITTEN.items():
        expression = expression.replace(written, plain)
    if not re.fullmatch(r"[0-9+\-*/()\s]+", expression) or "**" in expression:
        return False
    if sorted(map(int, re.findall("[0-9]+", expression))) != NUMBERS:
        return False
    exact = re.sub("([0-9]+)", r"Fraction(\1)", " ".join(expression.split()))
    # only digits and operators remain, and no more digits than the numbers have
    return eval(exact, {"Fraction": Fraction}) == TARGET  # noqa: S307
