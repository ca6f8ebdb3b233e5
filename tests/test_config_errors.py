"""Invalid options: errors with key, value and fix. Wording: tests/test_messages.py."""

from contextlib import redirect_stdout
from io import StringIO
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.config.fields import leaves
from weft_rl.config.load import diff_configs, load_run_config, to_yaml
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError


def load(*argv):
    return load_run_config(argv, command="weft_rl.pipeline")


def refusal(*argv):
    with pytest.raises(UserError) as caught:
        load(*argv)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ("rl.max_steps=8.0", 8),
        ("rl.max_steps=1e3", 1000),
        ("rl.max_steps=0", 1),
        ("seed=4294967296", 4294967295),
        ("rl.kl_coef=1,5", 1.5),
        ("sampler.threshold=1.5", 1.0),
        ("sampler.gen_length=33 sampler.block_length=32", 32),
        ("sampler.gen_length=96 sampler.block_length=32 sampler.steps=10", 9),
        ("rl.optimizer.micro_batch_size=100 rl.num_prompts=32 rl.num_generations=8", 128),
        ("base.hidden_size=62", 60),
    ],
)
def test_the_suggested_value_is_near_and_accepted(argv, value):
    key, suggestion = argv.split(" ")[-1].partition("=")[0], refusal(*argv.split(" "))
    key = suggestion.partition("=")[0]
    assert suggestion.endswith(f"; try {value}")
    load(*(word for word in argv.split(" ") if not word.startswith(f"{key}=")), f"{key}={value}")


@pytest.mark.parametrize(
    ("argv", "keys"),
    [
        ("learning_rat=1", ["base.learning_rate", "cold_start.learning_rate", "rl.learning_rate"]),
        ("samplr.steps=1", ["sampler.steps"]),
        ("lora.r=1", ["cold_start.lora.r", "rl.lora.r"]),
        ("sede=1", ["seed", "base.seed"]),
        ("--seed=1", ["seed=1"]),
        ("rl.max_step", ["rl.max_steps"]),
        ("xyz=1", []),
    ],
)
def test_the_nearest_options_are_suggested(argv, keys):
    message = refusal(argv)
    assert all(key in message for key in keys)
    assert ("did you mean" in message or "write" in message) == bool(keys)


def test_odd_arguments_are_one_short_line():
    assert refusal("").startswith("'': ")
    long = refusal("seed=" + "9" * 5000)
    assert long.startswith(f"seed={'9' * 77}...: ")
    assert "\n" not in refusal("out=a\nb", "seed=x\ny")


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        ({"gen_length": 33}, "sampler.gen_length=33"),
        ({"gen_length": 32.0}, "sampler.gen_length=32.0"),
        ({"gen_length": True}, "sampler.gen_length=true"),
        ({"gen_length": 0}, "sampler.gen_length=0"),
        ({"steps": -1}, "sampler.steps=-1"),
        ({"temperature": nan}, "sampler.temperature=nan"),
        ({"cfg_scale": inf}, "sampler.cfg_scale=inf"),
        ({"remasking": "low"}, "sampler.remasking=low"),
        ({"end_tokens": "no"}, "sampler.end_tokens=no"),
        ({"early_stop": None}, "sampler.early_stop=null"),
    ],
)
def test_checked_without_the_command_line(arguments, begin):
    with pytest.raises(ValueError, match=r"^sampler\.") as caught:
        SamplerConfig(**{"gen_length": 32, "block_length": 32, "steps": 16} | arguments)
    assert str(caught.value).startswith(f"{begin}: ")


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=30)
VALUES = ANY_TEXT | st.sampled_from(
    [
        *("null", "true", "${seed}", "${", "???", "1:30", "[a]"),
        "0",
        "-1",
        "1e400",
        "nan",
        "[",
        "]",
        "[]",
        ",",
        "9" * 5000,
        "\u0661",
        "1e5",
        "tiny",
    ]
)
KEYS = st.sampled_from([*leaves(RunConfig), "preset", "rl", "rl.lora", "", ".", "a"]) | ANY_TEXT
WORDS = (
    ANY_TEXT
    | st.builds("{}={}".format, KEYS, VALUES)
    | st.sampled_from(["--help", "-h", "--print-config"])
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=5))
def test_any_arguments(argv):
    message = done = config = None
    with redirect_stdout(StringIO()):
        try:
            config = load(*argv)
        except UserError as error:
            message = str(error)
        except SystemExit as leaving:
            done = leaving.code
    assert "\n" not in (message or "")
    assert done in (None, 0)
    assert config is None or diff_configs(to_yaml(config), config) == []
