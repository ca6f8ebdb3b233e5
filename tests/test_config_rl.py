"""Reinforcement learning's options: methods laid over a preset, and pairs that make no sense."""

from itertools import product
from operator import attrgetter
from typing import get_args

import pytest
import yaml

from weft_rl.config.fields import kinds
from weft_rl.config.load import load_run_config, preset_names, to_yaml
from weft_rl.config.rl import RLConfig
from weft_rl.diffusion.rl_methods import PER_TOKEN_LOSSES
from weft_rl.errors import UserError

ESTIMATORS, OBJECTIVES = (get_args(kinds(RLConfig)[key]) for key in ("estimator", "loss_type"))


def load(*argv):
    return load_run_config(argv, command="weft_rl.pipeline")


@pytest.mark.parametrize("name", preset_names("rl"))
@pytest.mark.parametrize("model", ["tiny", "llada_8b"])
def test_every_method_loads_over_every_preset(name, model):
    config = load(f"model={model}", f"rl.preset={name}")
    # what is printed and saved is everything that was resolved, and loads as the same
    assert yaml.safe_load(to_yaml(config))["rl"]["loss_type"] == config.rl.loss_type
    assert config.base == load(f"model={model}").base


def test_arguments_beat_methods_beat_presets():
    plain, over = load(), load("rl.preset=wd1")
    assert (plain.rl.loss_type, over.rl.loss_type) == ("bnpo", "wd1")
    assert over.rl.learning_rate == plain.rl.learning_rate
    assert load("rl.num_iterations=3", "rl.preset=wd1").rl.num_iterations == 3


def test_published_values():
    d1 = load("rl.preset=d1")
    assert (d1.rl.num_prompts * d1.rl.num_generations, d1.rl.num_iterations) == (96, 8)
    assert (d1.rl.kl_coef, d1.rl.loss.clip_coef, d1.rl.masks.share_group_masks) == (
        0.04,
        0.5,
        False,
    )
    assert (d1.sampler.gen_length, d1.sampler.block_length, d1.sampler.steps) == (256, 32, 128)
    spg = load("rl.preset=spg").rl
    assert (spg.loss.spg_exponent, spg.loss.spg_mixture, spg.masks.num_mc_samples) == (1.5, 0.5, 2)
    assert (spg.num_iterations, spg.kl_coef) == (4, 0)
    assert (spg.masks.share_group_masks, spg.masks.blockwise) == (False, True)
    # what its scripts share with d1's comes from the model's preset
    large = load("model=llada_8b", "rl.preset=spg")
    assert (large.rl.learning_rate, large.rl.num_prompts * large.rl.num_generations) == (3e-6, 96)
    assert (large.rl.masks.share_group_masks, large.sampler.block_length) == (False, 32)
    coupled = load("rl.preset=coupled").rl
    assert (coupled.num_generations, coupled.loss.baseline) == (10, "leave_one_out")


def sensible(estimator, objective):
    if objective == "spg":
        return estimator == "elbo"
    return estimator != "elbo" or objective not in PER_TOKEN_LOSSES


@pytest.mark.parametrize(("estimator", "objective"), product(ESTIMATORS, OBJECTIVES))
def test_pairs(estimator, objective):
    words = [f"rl.estimator={estimator}", f"rl.loss_type={objective}", "rl.kl_coef=0"]
    if sensible(estimator, objective):
        assert load(*words).rl.estimator == estimator
    else:
        with pytest.raises(UserError, match=f"^rl.loss_type={objective}: "):
            load(*words)


def test_a_trace_of_guided_samples_is_refused():
    words = ["rl.estimator=trace", "sampler.cfg_scale=1"]
    with pytest.raises(UserError, match=r"^sampler\.cfg_scale=1.0: "):
        load(*words)
    assert load(*words, "stages=[weft]").sampler.cfg_scale == 1


@pytest.mark.parametrize(
    "words",
    [
        "rl.estimator=elbo rl.loss_type=gspo rl.loss.kl_estimator=k2_sequence rl.kl_coef=0.1",
        "rl.rollout.reward_weights=[1,0.5]",
        *(
            f"rl.estimator={name} rl.loss_type=gspo rl.kl_coef=0 rl.masks.num_mc_samples=3"
            for name in ("random_mask", "elbo", "trace")
        ),
    ],
)
def test_accepted_combinations(words):
    for word in words.split():
        key, _, value = word.partition("=")
        option = attrgetter(key)(load(*words.split()))
        assert option == (value if isinstance(option, str) else yaml.safe_load(value))
