"""Options of the diffusion sampler."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from weft_rl.config.fields import Block, about, option, require
from weft_rl.config.numbers import nearest_whole


def _goes_with(length: int, width: int, steps: int) -> bool:
    """Whether so many tokens divide into blocks, and steps among them."""
    return length % width == 0 and steps <= length and steps % (length // width) == 0


@dataclass(frozen=True)
class SamplerConfig(Block):
    """How completions are denoised."""

    prefix: ClassVar[str] = "sampler."

    gen_length: int = field(metadata=about("tokens generated after the prompt", at_least=1))
    block_length: int = field(metadata=about("tokens of a block, done left to right", at_least=1))
    steps: int = field(
        metadata=about("denoising steps in all; a multiple of the number of blocks", at_least=1)
    )
    temperature: float = option(0.0, "0 takes the most probable token", at_least=0)
    remasking: Literal["low_confidence", "random"] = option(
        "low_confidence", "which tokens wait: the least confident, or any"
    )
    cfg_scale: float = option(0.0, "classifier-free guidance; 0 is off", at_least=0)
    cache: Literal["none", "prefix", "dual"] = option(
        "none", "keys and values kept within a block: none, exact; of all before it; or around it"
    )
    threshold: float | None = option(
        None,
        "commit all tokens this confident, not a fixed number a step; null is off",
        at_least=0,
        at_most=1,
    )
    early_stop: bool = option(True, "a row is finished once all up to its end token is known")
    trace: bool = option(False, "record which token was committed at which step")
    factor: float | None = option(
        None, "commit n tokens while the n-th is 1 - factor / (n + 1) confident", at_least=0
    )
    refresh_every: int | None = option(
        None,
        "with a cache: steps of a block between full forwards; null: only its first",
        at_least=1,
    )
    end_tokens: Literal["free", "late", "never", "no_eos"] = option(
        "free",
        "end tokens are like any, wait for a block's other tokens, or are not drawn; no_eos: the "
        "end of text alone is not, LLaDA's logits_eos_inf",
    )
    compile: bool = option(
        False,
        "torch.compile of the model, for batches of one shape: finished rows keep their places",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        length, width, steps = self.gen_length, self.block_length, self.steps
        count = max(length // width, 1)

        def lengths() -> list[int]:
            return nearest_whole(length, lambda each: _goes_with(each, width, steps))

        def numbers() -> list[int]:
            return nearest_whole(steps, lambda each: _goes_with(length, width, each), most=length)

        rule = f"must be a multiple of sampler.block_length={width}"
        require(length % width == 0, "sampler.gen_length", length, rule, lengths)
        rule = (
            f"must be a multiple of the {count} blocks (sampler.gen_length / sampler.block_length)"
        )
        require(steps % count == 0, "sampler.steps", steps, rule, numbers)
        rule = "must be at most sampler.gen_length, as each step commits a token"
        require(steps <= length, "sampler.steps", steps, rule, numbers)
        rule = "needs something kept; use sampler.cache=prefix or dual, or null"
        usable = self.refresh_every is None or self.cache != "none"
        require(usable, "sampler.refresh_every", self.refresh_every, rule)
        rule = "needs confidences; use sampler.remasking=low_confidence, or null"
        by_confidence = self.remasking == "low_confidence"
        for name, value in (("threshold", self.threshold), ("factor", self.factor)):
            require(value is None or by_confidence, f"sampler.{name}", value, rule)
        rule = f"is another rule than sampler.threshold={self.threshold}; set one to null"
        usable = self.factor is None or self.threshold is None
        require(usable, "sampler.factor", self.factor, rule)

    @property
    def most_steps(self) -> int:
        """Steps of a completion at most: a threshold or factor may commit a single token in each,
        whatever `steps` says."""
        by_confidence = self.threshold is not None or self.factor is not None
        return self.gen_length if by_confidence else self.steps
