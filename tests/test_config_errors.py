"""Mistakes in the options: each is refused, in words that name key, value and cure."""

from contextlib import redirect_stdout
from io import StringIO
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.config.fields import leaves
from weft_rl.config.load import diff_configs, load_run_config, to_yaml
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import STAGES, RunConfig
from weft_rl.errors import UserError

WHOLE = "must be a whole number in plain digits (not 8.0 or 1e3)"


def load(*argv):
    return load_run_config(argv, command="weft_rl.pipeline")


def refusal(*argv):
    with pytest.raises(UserError) as caught:
        load(*argv)
    return str(caught.value)


SIZES = "sampler.gen_length / sampler.block_length"
RATES = "base.learning_rate or cold_start.learning_rate or rl.learning_rate"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("rl.max_steps=abc", f"rl.max_steps=abc: {WHOLE}; try 200"),
        ("rl.max_steps=8.0", f"rl.max_steps=8.0: {WHOLE}; try 8"),
        ("rl.max_steps=1e3", f"rl.max_steps=1e3: {WHOLE}; try 1000"),
        ("rl.max_steps=null", f"rl.max_steps=null: {WHOLE}; try 200"),
        ("rl.max_steps=true", f"rl.max_steps=true: {WHOLE}; try 200"),
        ("rl.max_steps=", f"rl.max_steps=: {WHOLE}; try 200"),
        ("rl.max_steps=[1]", f"rl.max_steps=[1]: {WHOLE}; try 200"),
        ("rl.max_steps=${seed}", f"rl.max_steps=${{seed}}: {WHOLE}; try 200"),
        (
            "cold_start.loss_norm=${seed}",
            "cold_start.loss_norm=${seed}: must be one of answer, masked, none",
        ),
        ("seed=???", f"seed=???: {WHOLE}; try 0"),
        ("rl.max_steps=0", "rl.max_steps=0: must be at least 1; try 1"),
        (
            "seed=4294967296",
            "seed=4294967296: must be at least 0, below 4294967296; try 4294967295",
        ),
        ("rl.num_generations=1", "rl.num_generations=1: must be at least 2; try 2"),
        ("rl.lora.r=-1", "rl.lora.r=-1: must be at least 0; try 0"),
        ("rl.kl_coef=nan", "rl.kl_coef=nan: must be a finite number; try 0.01"),
        ("rl.kl_coef=-inf", "rl.kl_coef=-inf: must be a finite number; try 0.01"),
        ("rl.kl_coef=1,5", "rl.kl_coef=1,5: must be a finite number; try 1.5"),
        ("rl.rollout.temperature=0", "rl.rollout.temperature=0.0: must be above 0; try 1.0"),
        (
            "cold_start.exact_elbo=maybe",
            "cold_start.exact_elbo=maybe: must be true or false; try false",
        ),
        (
            "task=chess",
            "task=chess: must be one of sudoku, countdown, gsm8k, math500, or a Python file that "
            "ends in .py",
        ),
        ("resume=yes", "resume=yes: must be one of auto, never"),
        (
            "rl.estimator=two",
            "rl.estimator=two: must be one of one_step, coupled, random_mask, elbo, trace",
        ),
        ("model=", "model=: must be a text, not empty; try tiny"),
        ("device=tpu", "device=tpu: must be auto, cpu, cuda or cuda:N"),
        ("out=a\nb seed=x\ny", f"seed='x\\ny': {WHOLE}; try 0"),
        (
            "rl.optimizer.micro_batch_size=x",
            f"rl.optimizer.micro_batch_size=x: {WHOLE}, or null; try null",
        ),
        (
            "rl.optimizer.micro_batch_size=100 rl.num_prompts=32 rl.num_generations=8",
            "rl.optimizer.micro_batch_size=100: must divide the 256 completions of a rollout "
            "(rl.num_prompts x rl.num_generations); try 128",
        ),
        (
            "cold_start.exact_elbo=true cold_start.loss_norm=masked",
            "cold_start.exact_elbo=true: is the exact bound of a record divided by a fixed number, "
            "and cold_start.loss_norm=masked is a random one; use answer or none there, or "
            "stages=[weft_exact]",
        ),
        (
            "cold_start.t_sampling=antithetic cold_start.batch_size=1",
            "cold_start.t_sampling=antithetic: spreads the times of a forward pass, which has one "
            "with cold_start.batch_size=1; raise that, or use independent",
        ),
        (
            "sampler.gen_length=33 sampler.block_length=32",
            "sampler.gen_length=33: must be a multiple of sampler.block_length=32; try 32",
        ),
        (
            "sampler.gen_length=96 sampler.block_length=32 sampler.steps=10",
            f"sampler.steps=10: must be a multiple of the 3 blocks ({SIZES}); try 9",
        ),
        (
            "sampler.gen_length=32 sampler.block_length=32 sampler.steps=33",
            "sampler.steps=33: must be at most sampler.gen_length, as each step commits a token; "
            "try 32",
        ),
        (
            "sampler.cache=some",
            "sampler.cache=some: must be one of none, prefix, dual",
        ),
        (
            "sampler.refresh_every=4",
            "sampler.refresh_every=4: needs something kept; use sampler.cache=prefix or dual, "
            "or null",
        ),
        (
            "sampler.factor=1 sampler.threshold=0.9",
            "sampler.factor=1.0: is another rule than sampler.threshold=0.9; set one to null",
        ),
        (
            "sampler.factor=1 sampler.remasking=random",
            "sampler.factor=1.0: needs confidences; use sampler.remasking=low_confidence, or null",
        ),
        (
            "sampler.threshold=1.5",
            "sampler.threshold=1.5: must be at least 0, at most 1, or null; try 1.0",
        ),
        (
            "sampler.threshold=0.5 sampler.remasking=random",
            "sampler.threshold=0.5: needs confidences; use sampler.remasking=low_confidence, "
            "or null",
        ),
        (
            "base.hidden_size=62",
            "base.hidden_size=62: must be a multiple of base.num_attention_heads=4; try 60",
        ),
        (
            "stages=[rho1]",
            "cold_start.ref_model=null: is needed by stage rho1: name a checkpoint, "
            "for instance of an sft run",
        ),
        (
            "cold_start.entropy_pass.rates=cached cold_start.data.pad_in_answer=true",
            "cold_start.entropy_pass.rates=cached: keeps one rate an answer token, and with "
            "cold_start.data.pad_in_answer their number changes with the batch; use fresh",
        ),
        (
            "rl.lora.targets=[]",
            "rl.lora.targets=[]: must be a list of length at least 1; try [q_proj,k_proj,v_proj]",
        ),
        (
            "stages=[]",
            f"stages=[]: name some of {', '.join(STAGES)}",
        ),
        (
            "stages=[wfet,rl]",
            f"stages=[wfet,rl]: wfet is no stage; there are {', '.join(STAGES)}",
        ),
        ("stages=[rl,rl]", "stages=[rl,rl]: rl stands there twice; leave one out"),
        (
            "stages=[rl,]",
            "stages=[rl,]: must be a list like [a,b], each a text, not empty; try [rl]",
        ),
        (
            "stages=[base,rl] model=a/b",
            "stages=[base,rl]: base pretrains tiny and small, not model=a/b; leave base out",
        ),
        (
            "learning_rat=1",
            f"learning_rat=1: no such option; did you mean {RATES}?",
        ),
        (
            "rl.learning_rat=1",
            "rl.learning_rat=1: no such option; did you mean rl.learning_rate?",
        ),
        (
            "grpo.learning_rate=1",
            f"grpo.learning_rate=1: no such option; did you mean {RATES}?",
        ),
        (
            "samplr.steps=1",
            "samplr.steps=1: no such option; did you mean sampler.steps?",
        ),
        ("lora.r=1", "lora.r=1: no such option; did you mean cold_start.lora.r or rl.lora.r?"),
        ("sede=1", "sede=1: no such option; did you mean seed or base.seed?"),
        ("seed.x=1", "seed.x=1: no such option; did you mean seed?"),
        ("xyz=1", "xyz=1: no such option; --help lists the options"),
        ("=1", "=1: no such option; --help lists the options"),
        ("rl=1", "rl=1: is a group of options; set one of them, like rl.max_steps=..."),
        ("rl.lora", "rl.lora: is a group of options; set one of them, like rl.lora.r=..."),
        ("weft", "weft: is not key=value; --help lists the options"),
        ("rl.max_step", "rl.max_step: is not key=value; did you mean rl.max_steps?"),
        ("rl.max_steps", "rl.max_steps: needs a value; write rl.max_steps=..."),
        ("--seed=1", "--seed=1: no such flag; options have no dashes, write seed=1"),
        ("-v", "-v: no such flag; there are --help and --print-config"),
        ("seed=1 seed=2", "seed=2: already given as seed=1; keep one"),
        ("preset=x", "preset=x: no such preset; there are d1, llada_8b, paper, small, tiny"),
        ("preset=tiny preset=tiny", "preset=tiny: already given as preset=tiny; keep one"),
    ],
)
def test_mistakes_are_named(argv, message):
    assert refusal(*argv.split(" ")) == message


def test_empty_argument():
    assert refusal("") == "'': is not key=value; --help lists the options"


def test_a_long_value_is_cut():
    assert refusal("seed=" + "9" * 5000) == f"seed={'9' * 77}...: {WHOLE}; try 0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gen_length": 33}, "sampler.gen_length=33: must be a multiple of"),
        ({"gen_length": 32.0}, f"sampler.gen_length=32.0: {WHOLE}"),
        ({"gen_length": True}, f"sampler.gen_length=true: {WHOLE}"),
        ({"gen_length": 0}, "sampler.gen_length=0: must be at least 1"),
        ({"steps": -1}, "sampler.steps=-1: must be at least 1"),
        ({"temperature": nan}, "sampler.temperature=nan: must be a finite number; try 0.0"),
        ({"cfg_scale": inf}, "sampler.cfg_scale=inf: must be a finite number; try 0.0"),
        ({"remasking": "low"}, "sampler.remasking=low: must be one of low_confidence, random"),
        ({"end_tokens": "no"}, "sampler.end_tokens=no: must be one of free, late, never, no_eos"),
        ({"early_stop": None}, "sampler.early_stop=null: must be true or false; try true"),
    ],
)
def test_checked_without_the_command_line(arguments, message):
    with pytest.raises(ValueError, match=r"^sampler\.") as caught:
        SamplerConfig(**{"gen_length": 32, "block_length": 32, "steps": 16} | arguments)
    assert str(caught.value).startswith(message)


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
