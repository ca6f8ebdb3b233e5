"""Seeds, the smoothed curve, metric names, and log-probabilities of groups."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.log_probs import distinct_rows, token_log_probs
from weft_rl.ema import time_weighted_ema
from weft_rl.seeding import seed_for
from weft_rl.trainers.infra.callbacks import metric_row


def test_seeds_are_the_same_on_any_day():
    assert seed_for(0, "mask", 3, 1) == 82207324
    assert seed_for(1, 23) != seed_for(12, 3)
    assert seed_for(1) != seed_for("1")
    with pytest.raises(TypeError, match="True"):
        seed_for(True)


def test_smoothing_by_hand():
    # weight .25: w = .5; steps 0, 1, 2: each gap is 500 thousandths, a = .5^500, as good as 0
    assert time_weighted_ema([0, 1, 2], [1, 2, 6], 0.25).tolist() == pytest.approx([1, 2, 6])
    # 1,001 equal steps: each gap is 1 thousandth, a = .5: (1 * .5 + 4) / (.5 + 1) = 3
    steps = list(range(1001))
    smoothed = time_weighted_ema(steps, [1, 4] + [0] * 999, 0.25)
    assert smoothed[:2].tolist() == pytest.approx([1, 3])
    # then (4.5 * .5 + 0) / (1.5 * .5 + 1) = 2.25 / 1.75
    assert smoothed[2] == pytest.approx(2.25 / 1.75)


@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=50),
    st.floats(0.01, 0.99),
    st.floats(0.1, 1000),
)
def test_on_equal_steps_it_is_tensorboards_debiased_average(values, weight, step):
    # TensorBoard: last = w last + (1 - w) y, shown divided by 1 - w^n; w is for one point there,
    # and for a thousandth of the axis here
    own = min(weight**0.5, 0.999) ** (1000 / (len(values) - 1))
    last, shown = 0.0, []
    for n, y in enumerate(values, 1):
        last = own * last + (1 - own) * y
        shown.append(last / (1 - own**n))
    smoothed = time_weighted_ema([step * i for i in range(len(values))], values, weight)
    assert smoothed.tolist() == pytest.approx(shown, abs=1e-9)


@pytest.mark.parametrize(
    ("steps", "values"), [([0], [1, 2]), ([1, 0], [1, 2]), ([0, 1], [1, math.nan])]
)
def test_smoothing_refuses(steps, values):
    with pytest.raises(ValueError, match=r"steps|values"):
        time_weighted_ema(steps, values, 0.5)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0, 1))
def test_smoothing_stays_between_the_extremes(values, weight):
    smoothed = time_weighted_ema(range(len(values)), values, weight)
    assert min(values) - 1e-9 <= smoothed.min()
    assert smoothed.max() <= max(values) + 1e-9


def test_metric_names_are_the_run_folders():
    logs = {
        "loss": 1.0,
        "rewards/cell_accuracy/mean": 0.5,
        "rewards/cell_accuracy/std": 0.1,
        "completions/mean_length": 40.0,
        "clip_ratio/region_mean": 0.2,
        "clip_ratio/low_mean": 0.1,
        "step_time": 3.0,
    }
    assert metric_row(logs) == {
        "loss": 1.0,
        "rewards/cell_accuracy": 0.5,
        "completion_length": 40.0,
        "clip_ratio": 0.2,
    }


def test_log_probs_of_two_rows_of_one_group():
    # probabilities 3/4 and 1/4, then 1/2 and 1/2
    logits = tensor([[[math.log(3), 0.0], [0.0, 0.0]]])
    tokens, places = tensor([[0, 1], [1, 1]]), tensor([0, 0])
    log_probs, entropy = token_log_probs(logits, tokens, places)
    ln2 = math.log(2)
    assert_close(log_probs, tensor([[math.log(0.75), -ln2], [-2 * ln2, -ln2]]))
    # .75 ln(4/3) + .25 ln 4 = .5623
    assert_close(entropy, tensor([[0.56233514, ln2], [0.56233514, ln2]]))
    with pytest.raises(ValueError, match="index"):
        token_log_probs(torch.zeros(1, 2, 3), torch.zeros(2, 2).long(), torch.zeros(1).long())


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1, max_size=8))
def test_distinct_rows_put_back_are_the_rows(rows):
    keys = tensor(rows)
    first, places = distinct_rows(keys)
    assert torch.equal(keys[first][places], keys)
    assert len(first) == len({tuple(row) for row in rows})
    # the first of each kind, so that what belongs to it is in the batch's order
    assert all(rows.index(rows[int(i)]) == int(i) for i in first)
