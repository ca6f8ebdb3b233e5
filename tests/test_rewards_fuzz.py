"""Rewards on thousands of hostile texts: in range, in time, and nothing pays without solving.

benchmarks/reward_fuzz.py does the same on a hundred thousand."""

import time

import pytest
from hostile import RECORDS, completions, unearned
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards import format
from weft_rl.rewards.d1_scorer import math as strict_math
from weft_rl.rewards.d1_scorer import sudoku_countdown as strict_d1
from weft_rl.rewards.registry import REWARDS, training

LIMIT_S = 0.010
FORMATS = (format.tags, format.soft, format.strict, format.integer, format.boxed_answer)


def cheap_rewards():
    """Every reward that has no process behind it, with the record it is called with."""
    for task, record in RECORDS.items():
        if task != "math500":
            terms = [*training(task, "d1").values(), *training(task).values()]
            for reward in {term.reward for term in terms} | set(REWARDS[task].evaluation.values()):
                yield reward, record
    yield from ((reward, {}) for reward in FORMATS)
    yield strict_d1.sudoku, RECORDS["sudoku"]
    yield strict_d1.countdown, RECORDS["countdown"]
    yield strict_math.gsm8k, {"answer": 1764.0}
    yield strict_math.math500, {"answer": RECORDS["math500"]["answer"]}


def timed(reward, text, record):
    """The value, and the processor time; the better of two tries, as a machine may hiccup."""
    start = time.process_time()
    value = reward(text, **record)
    taken = time.process_time() - start
    if taken > LIMIT_S:
        start = time.process_time()
        reward(text, **record)
        taken = min(taken, time.process_time() - start)
    return value, taken


@pytest.mark.parametrize("seed", range(3))
def test_in_range_and_in_time(seed):
    for text in completions(seed, 1000):
        for reward, record in cheap_rewards():
            value, taken = timed(reward, text, record)
            assert isinstance(value, float), reward
            assert 0 <= value <= 1, reward
            assert taken < LIMIT_S, (reward, len(text), text[:200])


@pytest.mark.parametrize("seed", range(10, 12))
def test_nothing_pays_without_solving(seed):
    solved = 0
    for text in completions(seed, 3000):
        assert not unearned(text), text[:200]
        solved += REWARDS["countdown"].evaluation["exact"](text, **RECORDS["countdown"])
    assert 0 < solved < 30  # an expression meets the target by chance now and then


def test_math_on_hostile_texts():
    """Each call within its limit, no exception, nothing paid: 300 texts, as some cost seconds."""
    reward = REWARDS["math500"].evaluation["exact"]
    for text in completions(5, 300):
        assert reward(text, **RECORDS["math500"]) == 0, text[:200]


@settings(deadline=None, max_examples=300)
@given(
    text=st.text(),
    inside=st.text("0123456789+-*/().,=\\{}<>answer boxedfrac\0\n"),
    tags=st.lists(st.sampled_from(["<answer>", "</answer>", "\\boxed{", "}", "<|eot_id|>"])),
)
def test_any_text_at_all(text, inside, tags):
    for completion in (text, text.join(tags), f"{text}<answer>{inside}</answer>{''.join(tags)}"):
        for reward, record in cheap_rewards():
            assert 0 <= reward(completion, **record) <= 1
