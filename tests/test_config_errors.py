"""Invalid options: errors with key, value and fix. Wording: tests/test_messages.py."""

import re
from contextlib import redirect_stdout
from io import StringIO
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.config.fields import leaves
from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.config.overrides import diff_configs
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import RunConfig
from weft_rl.diffusion.rl_methods import ESTIMATORS, PER_TOKEN_LOSSES, RL_LOSSES
from weft_rl.errors import UserError
from weft_rl.pipeline.preflight import check_run


def load(*argv):
    return load_run_config(argv, command="it")


def refusal(*argv):
    try:
        load(*argv)
    except UserError as error:
        return str(error)
    return ""


def test_odd_arguments_are_one_short_line():
    assert refusal("").startswith("'': ")
    long = refusal("seed=" + "9" * 5000)
    assert long.startswith(f"seed={'9' * 77}...: ")
    assert "\n" not in refusal("out=a\nb", "seed=x\ny")


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        *(({"gen_length": 33}, "gen_length=33"), ({"gen_length": 32.0}, "gen_length=32.0")),
        *(({"gen_length": True}, "gen_length=true"), ({"gen_length": 0}, "gen_length=0")),
        *(({"steps": -1}, "steps=-1"), ({"temperature": nan}, "temperature=nan")),
        *(({"cfg_scale": inf}, "cfg_scale=inf"), ({"remasking": "low"}, "remasking=low")),
        *(({"end_tokens": "no"}, "end_tokens=no"), ({"early_stop": None}, "early_stop=null")),
    ],
)
def test_checked_without_the_command_line(arguments, begin):
    with pytest.raises(ValueError, match=rf"^sampler\.{re.escape(begin)}: "):
        SamplerConfig(**{"gen_length": 32, "block_length": 32, "steps": 16} | arguments)


def suggested(message):
    found = re.fullmatch(r"([\w.]+)=.*; try (\S+)", message, re.DOTALL)
    return found and (found[1], found[2])


BAD = ["1e3", "8.0", "0", "-1", "7", "abc", "true", "", "nan", "1e400", "97", "0.5", "1000000007"]
NUMBERS = [
    key for key, leaf in leaves(RunConfig).items() if re.search(r"\b(int|float)\b", str(leaf.kind))
]


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
                changed = {"preset": preset, key: value} | dict([suggestion])
                again = refusal(*(f"{name}={text}" for name, text in changed.items()))
                assert again == "", (message, again)
            elif message:
                assert re.search(
                    r"; use | or null|leave it out|heads=1|; give |a multiple of", message
                )
    assert num_suggestions > 20


@pytest.mark.parametrize(
    ("words", "value"),
    [
        *(("rl.max_steps=1e3", "1000"), ("rl.max_steps=8.0", "8"), ("rl.max_steps=0", "1")),
        *(("rl.max_steps=1_000.0", "1000"), ("rl.max_steps=1,000", "1000")),
        *(("rl.max_steps=many", "200"), ("seed=4294967296", "4294967295")),
        *(("cold_start.epochs=0", "5.0"), ("cold_start.epochs=0 preset=llada_8b", "20.0")),
        *(("rl.kl_coef=0,5", "0.5"), ("rl.kl_coef=-1", "0.0"), ("sampler.threshold=1.5", "1.0")),
        *(("rl.optimizer.micro_batch_size=7", "8"), ("base.hidden_size=62", "60")),
        ("rl.optimizer.micro_batch_size=100 rl.num_prompts=32 rl.num_generations=8", "128"),
        # 2 completions of 16 prompts do not divide into the preset's micro-batches of 6
        ("rl.num_generations=1 preset=llada_8b", "3"),
        ("sampler.gen_length=33 sampler.block_length=32", "32"),
        # 96 tokens would be 3 blocks, which 16 steps do not divide into
        ("sampler.gen_length=97", "128"),
        ("sampler.steps=10 sampler.gen_length=96 sampler.block_length=32", "9"),
        ("sampler.refresh_every=0", "null"),
    ],
)
def test_the_nearest_value_is_suggested(words, value):
    key, *others = words.partition("=")[0], *words.split()[1:]
    assert suggested(refusal(*words.split())) == (key, value)
    load(f"{key}={value}", *others)


RATE = "rl.learning_rate=1e-4"


@pytest.mark.parametrize(
    ("words", "fix"),
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
def test_the_form_of_an_option_is_named(words, fix):
    message = refusal(*words.split())
    assert message.endswith((fix, f"{fix}?"))
    assert ("1e-4" in message) == ("1e-4" in words)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "llada_8b"])
@pytest.mark.parametrize("estimator", ["", *ESTIMATORS])
@pytest.mark.parametrize("method", ["", *RL_LOSSES])
def test_the_fix_of_a_pair_passes_the_checks(method, estimator, preset):
    options = {"preset": preset, "model": "tiny", "data": "tiny", "stages": "[sft,rl]"}
    options |= {"rl.loss_type": method} if method else {}
    options |= {"rl.estimator": estimator} if estimator else {}
    message = refusal(*(f"{key}={value}" for key, value in options.items()))
    if not message:
        return
    assert "elbo" in (estimator, *message.split("=")) or method == "spg"
    fixes = re.findall(r"[\w.]+=[\w.]+", message.partition("; use ")[2].partition(" or ")[0])
    assert fixes
    fixed = options | dict(fix.split("=") for fix in fixes)
    check_run(load(*(f"{key}={value}" for key, value in fixed.items())))
    if method == "spg" or (estimator == "elbo" and method in PER_TOKEN_LOSSES):
        assert "rl.preset=spg" in message


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=30)
VALUES = ["null", "true", "${seed}", "${", "???", "1:30", "[a]", "0", "-1", "1e400", "nan", "["]
VALUES += ["]", "[]", ",", "9" * 5000, "\u0661", "1e5", "tiny"]
KEYS = st.sampled_from([*leaves(RunConfig), "preset", "rl", "rl.lora", "", ".", "a"]) | ANY_TEXT
WORDS = (
    ANY_TEXT
    | st.builds("{}={}".format, KEYS, ANY_TEXT | st.sampled_from(VALUES))
    | st.sampled_from(["--help", "-h", "--print-config"])
)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=5))
def test_any_arguments(argv):
    message = status = config = None
    with redirect_stdout(StringIO()):
        try:
            config = load(*argv)
        except UserError as error:
            message = str(error)
        except SystemExit as leaving:
            status = leaving.code
    assert "\n" not in (message or "")
    assert status in (None, 0)
    assert config is None or diff_configs(to_yaml(config), config) == []
