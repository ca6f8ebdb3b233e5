"""Options of the diffusion sampler."""

from dataclasses import MISSING, dataclass
from typing import Literal

from weft_rl.config.fields import Block, option


@dataclass(frozen=True)
class SamplerConfig(Block, prefix="sampler."):
    """Generation by block-wise denoising: blocks, steps, unmasking rule, KV cache.

    gen_length: tokens after the prompt. block_length: tokens per block; blocks are generated left
    to right. steps: denoising steps in total, a multiple of the number of blocks. temperature: 0 is
    greedy. remasking: which tokens stay masked, the least confident or random ones. cfg_scale:
    classifier-free guidance, 0 off. cache: of keys and values within a block, "none" (exact),
    "prefix" or "dual"; refresh_every: steps between full passes of a block with one. threshold or
    factor: unmask tokens by confidence, not a fixed number per step. early_stop: stop a row at its
    end token. end_tokens: sampled freely, unmasked last, or never. trace: record the step of each
    token. compile: torch.compile the model. Raises ValueError for values that do not fit."""

    gen_length: int = option(MISSING, "tokens generated after the prompt", at_least=1)
    block_length: int = option(
        MISSING, "tokens per block; blocks are generated left to right", at_least=1
    )
    steps: int = option(
        MISSING, "denoising steps in total; a multiple of the number of blocks", at_least=1
    )
    temperature: float = option(0.0, "sampling temperature; 0: greedy", at_least=0)
    remasking: Literal["low_confidence", "random"] = option(
        "low_confidence", "tokens that stay masked: the least confident, or random ones"
    )
    cfg_scale: float = option(0.0, "classifier-free guidance scale; 0: off", at_least=0)
    cache: Literal["none", "prefix", "dual"] = option(
        "none", "KV cache within a block: none (exact), prefix, or dual (prefix and suffix)"
    )
    threshold: float | None = option(
        None,
        "unmask all tokens with at least this probability, not a fixed number per step; null: off",
        at_least=0,
        at_most=1,
    )
    early_stop: bool = option(True, "stop a row when all tokens up to its end token are unmasked")
    trace: bool = option(False, "record the step at which each token is unmasked")
    factor: float | None = option(
        None, "unmask n tokens while the n-th has probability 1 - factor / (n + 1)", at_least=0
    )
    refresh_every: int | None = option(
        None,
        "steps between full forward passes of a block with a cache; null: only the first step",
        at_least=1,
    )
    end_tokens: Literal["free", "late", "never", "no_eos"] = option(
        "free",
        "end tokens: sampled freely, unmasked last in a block, or never; no_eos: only the end of "
        "text is never sampled (LLaDA's logits_eos_inf)",
    )
    compile: bool = option(
        False, "torch.compile the model; batches keep their shape, finished rows included"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        length, width, steps = self.gen_length, self.block_length, self.steps
        blocks = max(length // width, 1)
        rule = f"must be a multiple of sampler.block_length={width}"
        self.require(length % width == 0, "gen_length", rule, search=True)
        rule = f"a multiple of the {blocks} blocks (sampler.gen_length / sampler.block_length)"
        self.require(steps % blocks == 0, "steps", f"must be {rule}", search=True)
        rule = "must be at most sampler.gen_length: each step unmasks at least one token"
        self.require(steps <= length, "steps", rule, search=True)
        rule = "needs a cache; use sampler.cache=prefix or dual, or null"
        usable = self.refresh_every is None or self.cache != "none"
        self.require(usable, "refresh_every", rule)
        rule = "needs confidences; use sampler.remasking=low_confidence, or null"
        for name in ("threshold", "factor"):
            usable = getattr(self, name) is None or self.remasking == "low_confidence"
            self.require(usable, name, rule)
        rule = f"excludes sampler.threshold={self.threshold}; set one of them to null"
        self.require(self.factor is None or self.threshold is None, "factor", rule)

    @property
    def most_steps(self) -> int:
        """Maximum number of steps: a threshold or factor may unmask one token per step."""
        by_confidence = self.threshold is not None or self.factor is not None
        return self.gen_length if by_confidence else self.steps
