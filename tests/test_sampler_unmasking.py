"""Decisions of the sampler without a model: which positions, how many, when a row ends."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.config.sampler import SamplerConfig
from weft_rl.sampler.unmasking import (
    RULES,
    DenoisingState,
    num_transfer_tokens,
    reached_end,
    rule_of,
)

MASK, END, TURN = 0, 1, 2


def array(*rows):
    return np.array(rows)


def fresh(config, batch=1):
    return DenoisingState(batch, config, MASK, [END, TURN])


def unfinished(state):
    return np.flatnonzero(state.unfinished(np.arange(len(state.tokens))))


def unmask(state, rows, candidates, confidence):
    """A step, with candidates and confidences for full blocks: (A, K)."""
    where = state.masked_positions(rows)
    place = where.index, where.position - state.block_starts(rows)[where.index]
    return state.unmask(rows, where, candidates[place], confidence[place])


@pytest.mark.parametrize(
    ("masks", "steps", "expected"),
    [
        *((7, 3, [3, 2, 2]), (8, 3, [3, 3, 2]), (6, 3, [2, 2, 2]), (1, 3, [1, 0, 0])),
        *((5, 5, [1, 1, 1, 1, 1]), (5, 1, [5]), (0, 2, [0, 0])),
    ],
)
def test_first_steps_take_the_remainder(masks, steps, expected):
    assert num_transfer_tokens(masks, steps).tolist() == expected


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_quotas_sum_to_the_masks(masks, steps):
    found = num_transfer_tokens(masks, steps)
    assert found.sum() == masks
    assert np.ptp(found) <= 1
    assert (np.diff(found) <= 0).all()


M = np.ones(3, dtype=bool)  # all masked


@pytest.mark.parametrize(
    ("rule", "confidence", "masked", "amount", "expected"),
    [
        ("low_confidence", [0.1, 0.9, 0.5], M, [2], [1, 2]),
        ("random", [0.1, 0.9, 0.5], M, [2], [1, 2]),
        # ties go to the lowest index; an unstable sort would shuffle many of them
        ("low_confidence", np.ones(64), np.ones(64, dtype=bool), [3], [0, 1, 2]),
        # zero confidence comes before what is not masked
        ("low_confidence", [0.9, 0.0, 0.0, 0.9], [False, True, True, False], [1], [1]),
        ("low_confidence", [0.9, 0.0, 0.0, 0.9], [False, True, True, False], [4], [1, 2]),
        # all above the threshold, and always the best one
        ("threshold", [0.9, 0.95, 0.2, 1.0], [True, True, True, False], 0.9, [0, 1]),
        ("threshold", [0.3, 0.5, 0.2, 1.0], [True, True, True, False], 0.9, [1]),
        ("threshold", [0.0, 1.0, 1.0], M, 1.01, [1]),
        ("threshold", [0.0, 1.0, 1.0], M, 0.0, [0, 1, 2]),
        # bounds for the 1st, 2nd, 3rd: none, 1 - 1/3 = .667, 1 - 1/4 = .75
        ("factor", [0.9, 0.5, 0.99], M, 1.0, [0, 2]),
        ("factor", [0.1, 0.05, 0.0], M, 1.0, [0]),
        ("factor", [0.9, 0.9, 0.9], M, 1.0, [0, 1, 2]),
        # .7 is enough for a second, .76 for a third
        ("factor", [0.7, 0.2, 0.99], M, 1.0, [0, 2]),
        ("factor", [0.76, 0.8, 0.99], M, 1.0, [0, 1, 2]),
        # .6 is not, nor .7
        ("factor", [0.9, 0.6, 0.1], M, 1.0, [0]),
        ("factor", [0.9, 0.9, 0.7], M, 1.0, [0, 1]),
        # at zero only certainty is enough
        ("factor", [1.0, 0, 1, 1], [True, False, True, True], 0.0, [0, 2, 3]),
        ("factor", [0.99, 1.0, 0.999, 0.99], [True, False, True, True], 0.0, [2]),
    ],
)
def test_rules_by_hand(rule, confidence, masked, amount, expected):
    chosen = RULES[rule].select(array(confidence), array(masked), np.asarray(amount))
    assert np.flatnonzero(chosen).tolist() == expected


def test_rows_have_counts_of_their_own():
    confidence = array([0.1, 0.9, 0.5], [0.3, 0.2, 0.1])
    chosen = RULES["low_confidence"].select(confidence, array(M, M), np.array([2, 1]))
    assert chosen.tolist() == [[False, True, True], [True, False, False]]


def test_the_options_name_the_rule():
    assert rule_of(SamplerConfig(4, 4, 4)) == (RULES["low_confidence"], None)
    assert rule_of(SamplerConfig(4, 4, 4, remasking="random")) == (RULES["random"], None)
    for name in ("threshold", "factor"):
        assert rule_of(SamplerConfig(4, 4, 4, **{name: 0.0})) == (RULES[name], 0.0)


def test_late_ends_wait_for_the_blocks_other_tokens():
    state = fresh(SamplerConfig(3, 3, 3, end_tokens="late"))
    ends_first = array([END, 5, TURN]), array([0.9, 0.1, 0.8])
    unmask(state, unfinished(state), *ends_first)
    assert state.tokens.tolist() == [[MASK, 5, MASK]]
    # nothing else is left: the lowest one, and with its own confidence
    unmask(state, unfinished(state), *ends_first)
    assert state.tokens.tolist() == [[END, 5, MASK]]
    assert state.trace()[0][1]["confidence"] == 0.9


def test_full_forwards_of_a_cache():
    for every_n, expected in [(None, [1, 0, 0, 0]), (1, [1] * 4), (3, [1, 0, 0, 1])]:
        config = SamplerConfig(8, 4, 8, cache="dual", refresh_every=every_n)
        state, found = fresh(config), []
        for _ in range(8):
            rows = unfinished(state)
            found.append(int(state.needs_full_forward(rows)[0]))
            unmask(state, rows, np.full((1, 4), 5), np.ones((1, 4)))
        assert found == expected * 2


def test_an_end_counts_once_all_before_it_is_known():
    end = array([False, True, False], [False, True, False], [True, False, True], [False] * 3)
    masked = array([False, False, True], [True, False, False], [False, True, False], [False] * 3)
    assert reached_end(end, masked).tolist() == [True, False, True, False]


def test_a_row_is_done_at_its_first_certain_end():
    config = SamplerConfig(4, 2, 4)
    state = fresh(config, batch=2)
    rows = unfinished(state)
    assert rows.tolist() == [0, 1]
    # row 0 unmasks an end at its second position: the first is still masked
    unmask(state, rows, array([5, END], [5, 6]), array([0.1, 0.9], [0.9, 0.1]))
    assert unfinished(state).tolist() == [0, 1]
    unmask(state, rows, array([5, 7], [7, TURN]), array([0.5, 0.5], [0.5, 0.5]))
    assert unfinished(state).tolist() == []
    assert state.finish().tolist() == [1, 1]
    # what was open is filled with the end of text, whichever token ended the row
    assert state.tokens.tolist() == [[5, END, END, END], [5, TURN, END, END]]


@pytest.mark.parametrize(("first", "length"), [(END, 0), (6, 2)])
def test_without_early_stop_an_end_changes_nothing(first, length):
    state = fresh(SamplerConfig(2, 1, 2, early_stop=False))
    for token in (first, 5):
        assert unfinished(state).tolist() == [0]
        unmask(state, unfinished(state), array([token]), array([0.5]))
    assert unfinished(state).tolist() == []
    assert state.finish().tolist() == [length]
    assert state.tokens.tolist() == [[first, 5]]


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 7),
    blocks=st.integers(1, 4),
    steps=st.integers(1, 7),
    rule=st.none() | st.tuples(st.sampled_from(["threshold", "factor"]), st.floats(0, 1)),
    end_tokens=st.sampled_from(["free", "late"]),
    early_stop=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_position_is_unmasked_once_block_after_block(
    width, blocks, steps, rule, end_tokens, early_stop, seed
):
    rng = np.random.default_rng(seed)
    steps = blocks * min(steps, width)
    options = {"end_tokens": end_tokens, "early_stop": early_stop}
    options |= {} if rule is None else dict([rule])
    state = fresh(SamplerConfig(blocks * width, width, steps, **options), batch=3)
    forwards = 0
    while len(rows := unfinished(state)):
        size = (len(rows), width)
        unmask(state, rows, rng.integers(1, 9, size), rng.random(size))
        forwards += 1
    lengths = state.finish()
    assert not (state.tokens == MASK).any()
    assert forwards == state.step.max()
    if rule is None:
        assert forwards <= steps
    for row, trace in enumerate(state.trace()):
        where = [entry["position"] for entry in trace]
        assert len(set(where)) == len(where)
        block_order = [position // width for position in where]
        assert block_order == sorted(block_order)
        assert all(state.tokens[row, entry["position"]] == entry["token"] for entry in trace)
        # whatever stopping left open lies after the end
        left_open = set(range(blocks * width)) - set(where)
        assert all(position > lengths[row] for position in left_open)
        if not early_stop:
            assert not left_open


def test_unmasking_does_not_import_torch():
    code = "import sys, weft_rl.sampler.unmasking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
