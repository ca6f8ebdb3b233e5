"""The wording of errors: the one place where it is asserted, in fixtures/messages.txt.

`UPDATE_GOLDEN=1 pytest tests/test_messages.py` rewrites the file; read the difference."""

import os
from pathlib import Path

import pytest

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError

MESSAGES = Path(__file__).parent / "fixtures" / "messages.txt"
# Arguments of weft_rl.pipeline, each with one mistake.
MISTAKES = """
rl.max_steps=abc
rl.max_steps=8.0
rl.max_steps=1e3
rl.max_steps=null
rl.max_steps=true
rl.max_steps=
rl.max_steps=[1]
rl.max_steps=${seed}
cold_start.loss_norm=${seed}
seed=???
rl.max_steps=0
seed=4294967296
rl.num_generations=1
rl.lora.r=-1
rl.kl_coef=nan
rl.kl_coef=-inf
rl.kl_coef=1,5
rl.rollout.temperature=0
cold_start.exact_elbo=maybe
task=chess
resume=yes
rl.estimator=two
model=
device=tpu
rl.optimizer.micro_batch_size=x
rl.optimizer.micro_batch_size=100 rl.num_prompts=32 rl.num_generations=8
cold_start.exact_elbo=true cold_start.loss_norm=masked
cold_start.t_sampling=antithetic cold_start.batch_size=1
sampler.gen_length=33 sampler.block_length=32
sampler.gen_length=96 sampler.block_length=32 sampler.steps=10
sampler.gen_length=32 sampler.block_length=32 sampler.steps=33
sampler.cache=some
sampler.refresh_every=4
sampler.factor=1 sampler.threshold=0.9
sampler.factor=1 sampler.remasking=random
sampler.threshold=1.5
sampler.threshold=0.5 sampler.remasking=random
base.hidden_size=62
stages=[rho1]
cold_start.entropy_pass.rates=cached cold_start.data.pad_in_answer=true
rl.lora.targets=[]
stages=[]
stages=[wfet,rl]
stages=[rl,rl]
stages=[rl,]
stages=[base,rl] model=a/b
learning_rat=1
rl.learning_rat=1
grpo.learning_rate=1
samplr.steps=1
lora.r=1
sede=1
seed.x=1
xyz=1
=1
rl=1
rl.lora
weft
rl.max_step
rl.max_steps
--seed=1
-v
seed=1 seed=2
preset=x
preset=tiny preset=tiny
rl.estimator=elbo rl.loss_type=gspo
rl.masks.t_sampling=quadrature
rl.masks.complement=true
rl.masks.num_mc_samples=3
rl.estimator=coupled rl.masks.num_mc_samples=3
rl.estimator=trace rl.masks.blockwise=false
rl.rollout.reward_weights=[0]
rl.loss_type=gspo rl.loss.top_entropy_share=0.2
rl.loss_type=wd1 rl.loss.kl_cov_share=0.01
rl.num_iterations=1 rl.loss.kl_cov_share=0.01
rl.lora.dropout=0.05
rl.loss.top_entropy_share=0
rl.rollout.reward_weights=[a]
rl.preset=d2
rl.estimator=trace sampler.cfg_scale=1
rl.masks.per=row
rl.objective=spg
memory.weights=nf4
"""


def message(words):
    with pytest.raises(UserError) as caught:
        load_run_config(words, command="weft_rl.pipeline")
    return str(caught.value)


MISTAKEN = [line for line in MISTAKES.splitlines() if line]


def test_wording():
    """Every message is one line, ends without a period, and stands in the golden file."""
    lines = [f"{words}\n    {message(words.split(' '))}\n" for words in MISTAKEN]
    if os.environ.get("UPDATE_GOLDEN"):
        MESSAGES.write_text("".join(lines), encoding="utf-8")
    assert "".join(lines) == MESSAGES.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", MISTAKEN)
def test_a_mistake_is_named_by_key_and_value(words, capsys):
    """The message begins with one of the arguments' keys, and the status is 2."""

    def body(argv):
        return int(load_run_config(argv, command="weft_rl.pipeline") is None)

    assert execute("it", body, words.split(" ")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    text = lines[0].removeprefix("it: ")
    keys = [word.partition("=")[0] for word in words.split(" ")]
    # a mistake in two options together may name a third one, which has its default
    assert any(text.startswith(f"{key}") for key in keys) or "=" in text.split(":")[0]
