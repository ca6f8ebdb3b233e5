"""What a refused value suggests is accepted, under the preset that was given."""

import re

import pytest

from weft_rl.config.fields import leaves
from weft_rl.config.load import load_run_config
from weft_rl.config.schema import RunConfig
from weft_rl.diffusion.rl_methods import PER_TOKEN_LOSSES
from weft_rl.errors import UserError
from weft_rl.pipeline.preflight import check_run

BAD = ["1e3", "8.0", "0", "-1", "7", "abc", "true", "", "nan", "1e400", "97", "0.5", "1000000007"]
NUMBERS = [
    key for key, leaf in leaves(RunConfig).items() if re.search(r"\b(int|float)\b", str(leaf.kind))
]


def refusal(*argv):
    try:
        load_run_config(argv, command="it")
    except UserError as error:
        return str(error)
    return ""


def suggested(message):
    found = re.fullmatch(r"([\w.]+)=.*; try (\S+)", message, re.DOTALL)
    return found and (found[1], found[2])


@pytest.mark.slow
def test_every_suggestion_is_accepted():
    assert len(NUMBERS) > 50
    num_suggestions = 0
    # some of the values for each option, under alternating presets
    for number, key in enumerate(NUMBERS):
        preset = ("tiny", "llada_8b")[number % 2]
        for value in BAD[number % 12 :: 12]:
            message = refusal(f"preset={preset}", f"{key}={value}")
            suggestion = suggested(message)
            # some rules name other options, and 10^9 heads fit no width
            if suggestion:
                num_suggestions += 1
                given = {"preset": preset, key: value} | dict([suggestion])
                again = refusal(*(f"{name}={text}" for name, text in given.items()))
                assert again == "", (message, again)
            elif message:
                assert re.search(
                    r"; use | or null|leave it out|heads=1|; give |a multiple of", message
                )
    assert num_suggestions > 20


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("preset=tiny rl.max_steps=1e3", ("rl.max_steps", "1000")),
        ("preset=tiny rl.max_steps=8.0", ("rl.max_steps", "8")),
        ("preset=tiny rl.max_steps=1_000.0", ("rl.max_steps", "1000")),
        ("preset=tiny rl.max_steps=1,000", ("rl.max_steps", "1000")),
        ("preset=tiny rl.max_steps=0", ("rl.max_steps", "1")),
        ("preset=tiny rl.max_steps=many", ("rl.max_steps", "200")),
        ("preset=tiny cold_start.epochs=0", ("cold_start.epochs", "5.0")),
        ("preset=llada_8b cold_start.epochs=0", ("cold_start.epochs", "20.0")),
        ("preset=tiny rl.kl_coef=0,5", ("rl.kl_coef", "0.5")),
        ("preset=tiny rl.kl_coef=-1", ("rl.kl_coef", "0.0")),
        ("preset=tiny rl.optimizer.micro_batch_size=7", ("rl.optimizer.micro_batch_size", "8")),
        # 2 completions of 16 prompts do not divide into the preset's micro-batches of 6
        ("preset=llada_8b rl.num_generations=1", ("rl.num_generations", "3")),
        # 96 tokens would be 3 blocks, which 16 steps do not divide into
        ("preset=tiny sampler.gen_length=97", ("sampler.gen_length", "128")),
        ("preset=tiny sampler.refresh_every=0", ("sampler.refresh_every", "null")),
    ],
)
def test_the_nearest_value_is_suggested(words, found):
    assert suggested(refusal(*words.split())) == found


RATE = "rl.learning_rate=1e-4"


@pytest.mark.parametrize(
    ("words", "written"),
    [
        *(("--rl.learning_rate 1e-4", RATE), ("--rl.learning_rate=1e-4", RATE)),
        *(("-rl.learning_rate=1e-4", RATE), ("--rl.learning-rate 1e-4", RATE)),
        *(("--rl.learnin_rate 1e-4", RATE), ("--rl.lr=1e-4", RATE)),
        *(("rl.learning_rate 1e-4", RATE), ("rl.learning_rate = 1e-4", RATE)),
        *(("rl.learning_rate= 1e-4", RATE), ("rl.lr=1e-4", "rl.learning_rate")),
        *(("rl.kl_coef -1", "rl.kl_coef=-1"), ("--seed rl.max_steps=3", "seed=...")),
        ("--help=1", "--help"),
    ],
)
def test_the_form_of_an_option_is_named(words, written):
    message = refusal(*words.split())
    assert message.endswith((written, f"{written}?"))
    assert ("1e-4" in message) == ("1e-4" in words)


METHODS = ["bnpo", "grpo", "dr_grpo", "dapo", "gspo", "wd1", "spg"]
ESTIMATORS = ["one_step", "coupled", "random_mask", "elbo", "trace"]


@pytest.mark.parametrize("preset", ["tiny", "llada_8b"])
@pytest.mark.parametrize("estimator", ["", *ESTIMATORS])
@pytest.mark.parametrize("method", ["", *METHODS])
def test_the_cure_of_a_pair_passes_the_checks(method, estimator, preset):
    given = {"preset": preset, "model": "tiny", "data": "tiny", "stages": "[sft,rl]"}
    given |= {"rl.loss_type": method} if method else {}
    given |= {"rl.estimator": estimator} if estimator else {}
    message = refusal(*(f"{key}={value}" for key, value in given.items()))
    if not message:
        return
    assert "elbo" in (estimator, *message.split("=")) or method == "spg"
    cures = re.findall(r"[\w.]+=[\w.]+", message.partition("; use ")[2].partition(" or ")[0])
    assert cures
    cured = given | dict(cure.split("=") for cure in cures)
    words = [f"{key}={value}" for key, value in cured.items()]
    assert refusal(*words) == ""
    check_run(load_run_config(words, command="it"))
    if method == "spg" or (estimator == "elbo" and method in PER_TOKEN_LOSSES):
        assert "rl.preset=spg" in message
