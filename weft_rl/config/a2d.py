"""Options of stage a2d: adaptation of an autoregressive model to masked diffusion."""

from dataclasses import dataclass

from weft_rl.config.fields import Block, option

# Masks per held-out record and evaluation, in strata.
A2D_EVAL_DRAWS = 4


@dataclass(frozen=True)
class A2DConfig(Block, prefix="a2d."):
    """Adaptation of an autoregressive (AR) model to masked diffusion; cached for later runs."""

    data: str = option(
        "self",
        "chats or texts: a file, folder or Hub id; self: answers of the AR model, and the data= "
        "of the run",
    )
    # as many as there are built-in ones
    records: int = option(
        256, "prompts that the AR model answers (data=self)", at_least=1, at_most=800
    )
    max_new_tokens: int = option(96, "maximum tokens of such an answer", at_least=1)
    max_length: int = option(256, "tokens of a training sequence, packed with records", at_least=2)
    max_steps: int = option(300, "optimizer steps", at_least=1)
    batch_size: int = option(4, "sequences per device and forward pass", at_least=1)
    gradient_accumulation_steps: int = option(
        1, "forward and backward passes per optimizer step", at_least=1
    )
    learning_rate: float = option(3e-4, "peak learning rate; linear decay to 0", above=0)
    warmup_steps: int = option(20, "steps of linear warmup", at_least=0)
    anneal_steps: int = option(
        0, "steps from causal to full attention; 0: full attention at once", at_least=0
    )
    logit_shift: bool = option(
        False, "keep the AR shift: the output at a position predicts the next token"
    )
    eval_every: int = option(50, "steps between evaluations of the held-out NELBO", at_least=1)
    eval_records: int = option(32, "number of held-out records", at_least=2)
    logging_steps: int = option(10, "steps between logged metrics", at_least=1)
    save_steps: int = option(50, "steps between checkpoints", at_least=1)
    # transformers seeds NumPy's global generator, which takes 32 bits
    seed: int = option(0, "seed of the adaptation, the same in all runs", at_least=0, below=2**32)
