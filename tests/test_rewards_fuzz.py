"""Rewards on hostile texts: in range, in time, and nothing pays without solving."""

import time

import pytest
from hostile import LIMIT_S, RECORDS, cheap_rewards, completions, timed, unearned
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards.registry import REWARDS
from weft_rl.rewards.sudoku import cell_accuracy

OPEN, CLOSE, LONG = "<answer>", "</answer>", 1_000_000
INSIDE = [
    *("", "\0" * LONG, " " * LONG, "9" * LONG, "٣" * LONG, "²³¹", "\ud800" * LONG, "=" * LONG),
    *("(" * 100_000 + "1" + ")" * 100_000, "-" * LONG, "9**9**9", "9" + "**9" * 80),
    *("1/" * 120 + "3", "999999999*" * 25 + "9", "1/999999999+" * 20 + "9", "```" * 300_000),
    *("```" + " " * LONG, "```1 " * 200_000, "1 " * 500_000 + "=3", "1=" * LONG),
    *("1234123412341234 " * 60_000, ("1" * 16 + " " * 1000 + "x") * 1000, "\\frac" * 200_000),
    *("\\boxed{" * 140_000, "\\boxed{" + "{" * LONG, "\\boxed{" + "{}" * 500_000, "\\boxed " * 90),
    *("{" * LONG, "$" * LONG, "<|" * 500_000, "-" * 990 + "1", "(" * 400 + "1" + ")" * 400),
]
WHOLE = [OPEN * 120_000, CLOSE * 110_000, (OPEN + CLOSE) * 60_000, "<|endoftext|>" * 80_000]
TEXTS = [*INSIDE, *(OPEN + text + CLOSE for text in INSIDE), *WHOLE]


CHEAP = [*cheap_rewards(), (cell_accuracy, {"puzzle": "0" * 16})]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reward", "record"), CHEAP, ids=[f"{f.__module__}.{f.__name__}" for f, _ in CHEAP]
)
def test_a_megabyte_is_in_range_and_quick(reward, record):
    start = time.process_time()
    values = [reward(text, **record) for text in TEXTS]
    seconds = time.process_time() - start
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in values)
    # about 70 texts of a megabyte at some ms each; one quadratic search alone takes minutes
    assert seconds < 2


@pytest.mark.slow
def test_in_range_and_in_time():
    for text in completions(0, 1000):
        for reward, record in CHEAP:
            value, seconds = timed(reward, text, record)
            assert isinstance(value, float), reward
            assert 0 <= value <= 1, reward
            assert seconds < LIMIT_S, (reward, len(text), text[:200])


@pytest.mark.slow
def test_nothing_pays_without_solving():
    solved = 0
    for text in completions(10, 4000):
        assert not unearned(text), text[:200]
        solved += REWARDS["countdown"].evaluation["exact"](text, **RECORDS["countdown"])
    assert 0 < solved < 30  # an expression meets the target by chance now and then


@pytest.mark.slow
def test_math_on_hostile_texts():
    """Each call within its limit, no exception, nothing paid: 150 texts, as some cost seconds."""
    exact, record = REWARDS["math500"].evaluation["exact"], RECORDS["math500"]
    assert [text[:200] for text in completions(5, 150) if exact(text, **record) != 0] == []


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    text=st.text(),
    inside=st.text("0123456789+-*/().,=\\{}<>answer boxedfrac\0\n\u0663"),
    tags=st.lists(st.sampled_from(["<answer>", "</answer>", "\\boxed{", "}", "<|eot_id|>"])),
)
def test_any_text_at_all(text, inside, tags):
    for completion in (text, text.join(tags), f"{text}<answer>{inside}</answer>{''.join(tags)}"):
        for reward, record in CHEAP:
            assert 0 <= reward(completion, **record) <= 1
