"""Which positions are committed, how many and when to stop, without a model."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.config.sampler import SamplerConfig
from weft_rl.sampler.unmasking import (
    DenoisingState,
    confident_enough,
    jointly_confident,
    most_confident,
    num_transfer_tokens,
    reached_end,
)

MASK, END, TURN = 0, 1, 2


def array(*rows):
    return np.array(rows)


def started(config, batch=1):
    return DenoisingState(batch, config, MASK, [END, TURN])


def every(progress):
    return np.flatnonzero(progress.unfinished(np.arange(len(progress.tokens))))


def commit(progress, rows, candidate, confidence):
    """A step, with candidates and confidences for whole blocks: (A, K)."""
    where = progress.open(rows)
    column = where.position - progress.starts(rows)[where.index]
    place = where.index, column
    return progress.commit(rows, where, candidate[place], confidence[place])


@pytest.mark.parametrize(
    ("masks", "steps", "expected"),
    [
        (7, 3, [3, 2, 2]),
        (8, 3, [3, 3, 2]),
        (6, 3, [2, 2, 2]),
        (5, 5, [1, 1, 1, 1, 1]),
        (5, 1, [5]),
        (0, 2, [0, 0]),
        (1, 3, [1, 0, 0]),
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


def test_most_confident_counts_each_row_by_itself():
    confidence = array([0.1, 0.9, 0.5], [0.3, 0.2, 0.1])
    chosen = most_confident(confidence, np.ones((2, 3), dtype=bool), np.array([2, 1]))
    assert chosen.tolist() == [[False, True, True], [True, False, False]]


def test_ties_go_to_the_lowest_index():
    # many equal values: an unstable sort would shuffle them
    chosen = most_confident(np.ones((1, 64)), np.ones((1, 64), dtype=bool), np.array([3]))
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2]


def test_committed_positions_are_never_chosen():
    masked = array([False, True, True, False])
    for count, expected in [(1, [1]), (2, [1, 2]), (4, [1, 2])]:
        # zero confidence still comes before what is not masked
        chosen = most_confident(array([0.9, 0.0, 0.0, 0.9]), masked, np.array([count]))
        assert np.flatnonzero(chosen).tolist() == expected


def test_threshold_takes_all_above_and_always_the_best():
    masked = array([True, True, True, False], [True, True, True, False])
    confidence = array([0.9, 0.95, 0.2, 1.0], [0.3, 0.5, 0.2, 1.0])
    chosen = confident_enough(confidence, masked, 0.9)
    assert chosen.tolist() == [[True, True, False, False], [False, True, False, False]]


@pytest.mark.parametrize(("threshold", "expected"), [(1.01, [1]), (0.0, [0, 1, 2])])
def test_threshold_limits(threshold, expected):
    # above every probability one token a step, at zero the whole block
    chosen = confident_enough(array([0.0, 1.0, 1.0]), np.ones((1, 3), dtype=bool), threshold)
    assert np.flatnonzero(chosen).tolist() == expected


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        # limits for the 1st, 2nd, 3rd, ...: none, 1 - 1/3 = .667, 1 - 1/4 = .75, 1 - 1/5 = .8
        ([0.9, 0.5, 0.99], [0, 2]),
        ([0.1, 0.05, 0.0], [0]),
        ([0.9, 0.9, 0.9], [0, 1, 2]),
        # .7 is enough for a second, and .76 for a third
        ([0.7, 0.2, 0.99], [0, 2]),
        ([0.76, 0.8, 0.99], [0, 1, 2]),
        # and .6 is not, nor .7
        ([0.9, 0.6, 0.1], [0]),
        ([0.9, 0.9, 0.7], [0, 1]),
    ],
)
def test_factor_wants_more_confidence_for_more_tokens(confidence, expected):
    chosen = jointly_confident(array(confidence), np.ones((1, 3), dtype=bool), 1.0)
    assert np.flatnonzero(chosen).tolist() == expected


def test_factor_limits_and_what_is_committed_already():
    masked = array([True, False, True, True])
    assert jointly_confident(array([1.0, 0, 1, 1]), masked, 0.0).tolist() == masked.tolist()
    sure = array([0.99, 1.0, 0.999, 0.99])
    # at zero only certainty is enough
    chosen = jointly_confident(sure, masked, 0.0)
    assert np.flatnonzero(chosen).tolist() == [2]


def test_late_ends_wait_for_the_blocks_other_tokens():
    progress = started(SamplerConfig(3, 3, 3, end_tokens="late"))
    ends_first = array([END, 5, TURN]), array([0.9, 0.1, 0.8])
    commit(progress, every(progress), *ends_first)
    assert progress.tokens.tolist() == [[MASK, 5, MASK]]
    # nothing else is left: the lowest one, and with its own confidence
    commit(progress, every(progress), *ends_first)
    assert progress.tokens.tolist() == [[END, 5, MASK]]
    assert progress.trace()[0][1]["confidence"] == 0.9


def test_full_forwards_of_a_cache():
    for every_n, expected in [(None, [1, 0, 0, 0]), (1, [1] * 4), (3, [1, 0, 0, 1])]:
        config = SamplerConfig(8, 4, 8, cache="dual", refresh_every=every_n)
        progress, found = started(config), []
        for _ in range(8):
            rows = every(progress)
            found.append(int(progress.needs_all(rows)[0]))
            commit(progress, rows, np.full((1, 4), 5), np.ones((1, 4)))
        assert found == expected * 2


def test_an_end_counts_once_all_before_it_is_known():
    end = array([False, True, False], [False, True, False], [True, False, True], [False] * 3)
    masked = array([False, False, True], [True, False, False], [False, True, False], [False] * 3)
    assert reached_end(end, masked).tolist() == [True, False, True, False]


def test_a_row_is_done_at_its_first_certain_end():
    config = SamplerConfig(4, 2, 4)
    progress = started(config, batch=2)
    rows = every(progress)
    assert rows.tolist() == [0, 1]
    # row 0 commits its second position as an end: the first is still open
    commit(progress, rows, array([5, END], [5, 6]), array([0.1, 0.9], [0.9, 0.1]))
    assert every(progress).tolist() == [0, 1]
    commit(progress, rows, array([5, 7], [7, TURN]), array([0.5, 0.5], [0.5, 0.5]))
    assert every(progress).tolist() == []
    assert progress.finish().tolist() == [1, 1]
    # what was open is filled with the end of text, whichever token ended the row
    assert progress.tokens.tolist() == [[5, END, END, END], [5, TURN, END, END]]


def test_without_early_stop_an_end_changes_nothing():
    progress = started(SamplerConfig(2, 1, 2, early_stop=False))
    commit(progress, every(progress), array([END]), array([0.5]))
    assert every(progress).tolist() == [0]
    commit(progress, every(progress), array([5]), array([0.5]))
    assert every(progress).tolist() == []
    assert progress.tokens.tolist() == [[END, 5]]
    assert progress.finish().tolist() == [0]


def test_length_without_an_end_is_all():
    progress = started(SamplerConfig(2, 2, 1))
    commit(progress, every(progress), array([5, 6]), array([0.5, 0.5]))
    assert progress.finish().tolist() == [2]


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
def test_every_position_is_committed_once_block_after_block(
    width, blocks, steps, rule, end_tokens, early_stop, seed
):
    rng = np.random.default_rng(seed)
    steps = blocks * min(steps, width)
    options = {"end_tokens": end_tokens, "early_stop": early_stop}
    options |= {} if rule is None else dict([rule])
    progress = started(SamplerConfig(blocks * width, width, steps, **options), batch=3)
    forwards = 0
    while len(rows := every(progress)):
        size = (len(rows), width)
        commit(progress, rows, rng.integers(1, 9, size), rng.random(size))
        forwards += 1
    lengths = progress.finish()
    assert not (progress.tokens == MASK).any()
    assert forwards == progress.step.max()
    if rule is None:
        assert forwards <= steps
    for row, trace in enumerate(progress.trace()):
        where = [entry["position"] for entry in trace]
        assert len(set(where)) == len(where)
        block_order = [position // width for position in where]
        assert block_order == sorted(block_order)
        assert all(progress.tokens[row, entry["position"]] == entry["token"] for entry in trace)
        # whatever stopping left open lies after the end
        left_open = set(range(blocks * width)) - set(where)
        assert all(position > lengths[row] for position in left_open)
        if not early_stop:
            assert not left_open


def test_control_does_not_import_torch():
    code = "import sys, weft_rl.sampler.unmasking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
