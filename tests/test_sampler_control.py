"""Which positions are committed, how many and when to stop, without a model."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.config.schema import SamplerConfig
from weft_rl.sampler.control import (
    Progress,
    confident_enough,
    most_confident,
    quotas,
    reached_end,
)

MASK, END, TURN = 0, 1, 2


def array(*rows):
    return np.array(rows)


def started(config, batch=1):
    return Progress(batch, config, MASK, [END, TURN])


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
    assert quotas(masks, steps).tolist() == expected


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_quotas_sum_to_the_masks(masks, steps):
    found = quotas(masks, steps)
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


def test_an_end_counts_once_all_before_it_is_known():
    end = array([False, True, False], [False, True, False], [True, False, True], [False] * 3)
    masked = array([False, False, True], [True, False, False], [False, True, False], [False] * 3)
    assert reached_end(end, masked).tolist() == [True, False, True, False]


def test_a_row_is_done_at_its_first_certain_end():
    config = SamplerConfig(4, 2, 4)
    progress = started(config, batch=2)
    rows = progress.unfinished()
    assert rows.tolist() == [0, 1]
    # row 0 commits its second position as an end: the first is still open
    progress.commit(rows, array([5, END], [5, 6]), array([0.1, 0.9], [0.9, 0.1]))
    assert progress.unfinished().tolist() == [0, 1]
    progress.commit(rows, array([5, 7], [7, TURN]), array([0.5, 0.5], [0.5, 0.5]))
    assert progress.unfinished().tolist() == []
    assert progress.finish().tolist() == [1, 1]
    # what was open is filled with the end of text, whichever token ended the row
    assert progress.tokens.tolist() == [[5, END, END, END], [5, TURN, END, END]]


def test_without_early_stop_an_end_changes_nothing():
    progress = started(SamplerConfig(2, 1, 2, early_stop=False))
    progress.commit(progress.unfinished(), array([END]), array([0.5]))
    assert progress.unfinished().tolist() == [0]
    progress.commit(progress.unfinished(), array([5]), array([0.5]))
    assert progress.unfinished().tolist() == []
    assert progress.tokens.tolist() == [[END, 5]]
    assert progress.finish().tolist() == [0]


def test_length_without_an_end_is_all():
    progress = started(SamplerConfig(2, 2, 1))
    progress.commit(progress.unfinished(), array([5, 6]), array([0.5, 0.5]))
    assert progress.finish().tolist() == [2]


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 7),
    blocks=st.integers(1, 4),
    steps=st.integers(1, 7),
    threshold=st.none() | st.floats(0, 1),
    early_stop=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_position_is_committed_once_block_after_block(
    width, blocks, steps, threshold, early_stop, seed
):
    rng = np.random.default_rng(seed)
    steps = blocks * min(steps, width)
    options = {"threshold": threshold, "early_stop": early_stop, "trace": True}
    progress = started(SamplerConfig(blocks * width, width, steps, **options), batch=3)
    forwards = 0
    while len(rows := progress.unfinished()):
        size = (len(rows), width)
        progress.commit(rows, rng.integers(1, 9, size), rng.random(size))
        forwards += 1
    lengths = progress.finish()
    assert not (progress.tokens == MASK).any()
    assert forwards == progress.step.max()
    if threshold is None:
        assert forwards <= steps
    for row, trace in enumerate(progress.trace):
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
    code = "import sys, weft_rl.sampler.control; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
