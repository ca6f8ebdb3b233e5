"""Block-wise denoising: row scheduling and the computation of each step.

N prompts, A of them in a step, P prompt and T completion tokens, M masked positions, V vocabulary.
A module named `generate` would shadow the exported function `generate`."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.text import decode_completion
from weft_rl.errors import UserError
from weft_rl.sampler.model_runner import ModelRunner
from weft_rl.sampler.prompts import encode_prompts
from weft_rl.sampler.rng import Keys, stream_keys, uniform
from weft_rl.sampler.token_sampling import sample_candidates
from weft_rl.sampler.unmasking import (
    Bools,
    DenoisingState,
    Floats,
    Ints,
    MaskedPositions,
    TraceEntry,
)
from weft_rl.sampler.validation import check_input, special_ids


@dataclass(frozen=True)
class SamplerOutput:
    """Completions of a batch, in the order of its prompts."""

    tokens: Tensor  # (N, P + T) long: prompts, then completions
    completions: Tensor  # (N, T) long, without mask tokens
    lengths: Tensor  # (N,) long: tokens before the first end token, T without one
    forwards: int  # number of forward passes
    trace: list[list[TraceEntry]] | None  # unmasked tokens of each row in order, if requested
    texts: list[str] | None = None  # decoded up to the end token, if there was a tokenizer


@dataclass(frozen=True)
class Step:
    """The R tokens unmasked by a step, and the progress so far."""

    rows: Ints  # (R,) prompt index
    positions: Ints  # (R,) in the completion
    tokens: Ints  # (R,)
    confidences: Floats  # (R,)
    finished: int  # completions
    total: int  # completions
    share: float  # fraction of the work done, in [0, 1]; positions after an end token count as done
    committed: int  # tokens
    forwards: int  # forward passes
    seconds: float


OnStep = Callable[[Step], None]


def generate(
    model: nn.Module,
    prompt_ids: Tensor | Sequence[Any] | PreTrainedTokenizerBase | None = None,
    config: SamplerConfig | None = None,
    attention_mask: Tensor | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    *,
    prompts: Sequence[Any] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    batch_size: int | None = None,
    on_step: OnStep | None = None,
) -> SamplerOutput:
    """Complete each prompt by denoising T mask tokens block by block.

    model: a transformers masked language model whose config names the mask and end tokens.
    prompt_ids (N, P) long; attention_mask (N, P), 0 on left padding; seeds (N,) ints, default
    0 .. N-1. Or prompts, with a tokenizer (which may take prompt_ids' place): N texts, which are
    not put into the chat template, or N chats, lists of messages, which are; the output then has
    texts. config: default: 256 tokens in blocks of 32, two per step. batch_size: rows denoised
    together; the next prompt replaces a finished one. on_step: called after every step.

    A row depends on its prompt and seed only, not on padding, batch size or other rows, up to the
    rounding of matmuls (in bfloat16, rounding can decide between two nearly equal candidates).
    Candidates are sampled from softmax(logits / temperature) without the mask token. Confidence is
    the float32 probability at temperature 1 over the full vocabulary. early_stop does not change
    tokens up to the end token. cache="none" is exact; caches are approximate. Module modes and
    global random state are unchanged.

    Raises ValueError for invalid input, UserError for canvases that exceed the model's positions
    and for logits that are not finite. Source: LLaDA's sampler, ties to the lowest index; Fast-dLLM
    for caches, threshold, factor.

    >>> from weft_rl import SamplerConfig, generate
    >>> from weft_rl.config.schema import BaseConfig
    >>> from weft_rl.models.loading import fresh_model
    >>> from weft_rl.models.toy import tiny_config, tiny_tokenizer
    >>> model = fresh_model(tiny_config(BaseConfig()), seed=0)
    >>> config = SamplerConfig(gen_length=8, block_length=8, steps=4)
    >>> chat = [{"role": "user", "content": "2 + 3"}]
    >>> len(generate(model, tiny_tokenizer(), config, prompts=[chat]).texts)
    1
    """
    if isinstance(prompt_ids, PreTrainedTokenizerBase):
        prompt_ids, tokenizer = None, prompt_ids
    if not isinstance(prompt_ids, Tensor):
        prompts = prompts if prompt_ids is None else prompt_ids
        device = next(model.parameters()).device
        prompt_ids, attention_mask = encode_prompts(prompts, tokenizer, device)
    elif prompts is not None:
        raise ValueError("prompts: given beside prompt_ids; give one of them")
    config = config or SamplerConfig(256, 32, 128)
    output = _generate(model, prompt_ids, config, attention_mask, seeds, batch_size, on_step)
    if tokenizer is None:
        return output
    ends = special_ids(model)[1]
    rows = output.completions.tolist()
    return replace(output, texts=[decode_completion(tokenizer, row, ends) for row in rows])


def _generate(
    model: nn.Module,
    prompt_ids: Tensor,
    config: SamplerConfig,
    attention_mask: Tensor | None,
    seeds: Sequence[int] | Tensor | None,
    batch_size: int | None,
    on_step: OnStep | None,
) -> SamplerOutput:
    mask_id, end_ids = special_ids(model)
    visible = torch.ones_like(prompt_ids) if attention_mask is None else attention_mask.long()
    row_seeds = [*range(len(prompt_ids))] if seeds is None else [index(seed) for seed in seeds]
    check_input(model, prompt_ids, visible, row_seeds, config, mask_id)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    slots = min(len(prompt_ids), batch_size or len(prompt_ids))
    state = DenoisingState(len(prompt_ids), config, mask_id, end_ids)
    with _evaluation_mode(model), torch.no_grad():
        runner = ModelRunner(model, prompt_ids, visible, mask_id, config, slots)
        forwards = _Sampler(runner, state, config, row_seeds, mask_id).run(slots, on_step)
    lengths = torch.from_numpy(state.finish()).to(prompt_ids.device)
    completions = torch.from_numpy(state.tokens).to(prompt_ids.device)
    tokens = torch.cat([prompt_ids, completions], dim=1)
    trace = state.trace() if config.trace else None
    return SamplerOutput(tokens, completions, lengths, forwards, trace)


class _Sampler:
    """Loop over steps. Rows occupy slots of the batch until they are finished."""

    def __init__(
        self,
        runner: ModelRunner,
        state: DenoisingState,
        config: SamplerConfig,
        seeds: Sequence[int],
        mask_id: int,
    ) -> None:
        self.runner, self.state, self.config = runner, state, config
        self.token_keys = stream_keys(seeds, "token")
        self.position_keys = stream_keys(seeds, "position")
        end_ids = state.end_ids.tolist()
        self.forbidden = [mask_id, *(end_ids if config.end_tokens == "never" else [])]
        # as LLaDA's logits_eos_inf: the token is also removed from the confidences
        self.removed = end_ids[:1] if config.end_tokens == "no_eos" else []

    def run(self, slots: int, on_step: OnStep | None) -> int:
        """Complete all rows, `slots` at a time, and return the number of forward passes."""
        state, total, start = self.state, len(self.state.tokens), time.perf_counter()
        rows, waiting = np.arange(slots), np.arange(slots, total)
        forwards = committed = 0
        while len(rows):
            row, position = self._step(rows)
            forwards, committed = forwards + 1, committed + len(row)
            masked, unfinished = state.masked[rows], state.unfinished(rows)
            rows, waiting = self._assign_slots(rows, unfinished, waiting)
            if on_step is not None:
                finished = total - int(state.unfinished(rows).sum()) - len(waiting)
                # rows that just got a slot have no progress yet
                share = (finished + (1 - masked[unfinished].mean(axis=1)).sum()) / total
                on_step(
                    Step(
                        row,
                        position,
                        state.tokens[row, position],
                        state.confidence[row, position],
                        finished=finished,
                        total=total,
                        share=float(share),
                        committed=committed,
                        forwards=forwards,
                        seconds=time.perf_counter() - start,
                    )
                )
        return forwards

    def _assign_slots(self, rows: Ints, unfinished: Bools, waiting: Ints) -> tuple[Ints, Ints]:
        """Return the rows of the next step by slot (A,), and the waiting rows."""
        free = np.flatnonzero(~unfinished)
        filled, empty = free[: len(waiting)], free[len(waiting) :]
        rows = rows.copy()
        rows[filled] = waiting[: len(filled)]
        # compiled batches have a fixed shape: finished rows keep their slots until all are finished
        if len(empty) and not (self.config.compile and len(free) < len(rows)):
            kept = np.setdiff1d(np.arange(len(rows)), empty)
            self.runner.keep_slots(kept)
            rows = rows[kept]
        return rows, waiting[len(filled) :]

    def _step(self, rows: Ints) -> tuple[Ints, Ints]:
        """Run one forward pass and unmask; return row and position of each unmasked token.

        Rows that need a full forward wait for rows in the middle of a block: one large forward is
        faster than two small ones. Results do not depend on the schedule."""
        state, fixed_shape = self.state, self.config.compile
        full = state.needs_full_forward(rows)
        active = state.unfinished(rows) if fixed_shape else np.ones(len(rows), dtype=bool)
        all_full = bool(full[active].all())
        slots = np.flatnonzero(active if all_full else active & ~full)
        stepping = rows[slots]
        where = state.masked_positions(stepping)
        # with a fixed shape all rows are sent; results of inactive rows are ignored
        sent, asked = stepping, where
        if fixed_shape:
            sent, asked = rows, MaskedPositions(slots[where.index], where.position)
        completions = state.tokens[sent]
        if all_full and not state.step[sent].any():
            logits = self.runner.first_forward(sent, completions, asked)
        elif all_full:
            logits = self.runner.full_forward(sent, completions, asked)
        else:
            cached = None if len(sent) == len(rows) else slots
            starts = state.block_starts(sent)
            logits = self.runner.cached_forward(sent, cached, completions, asked, starts)
        tokens, confidence = self._candidates(logits, stepping[where.index], where.position)
        chosen = state.unmask(stepping, where, tokens, confidence)
        return stepping[chosen.index], chosen.position

    def _candidates(self, logits: Tensor, row: Ints, position: Ints) -> tuple[Ints, Floats]:
        """Sample a token for each masked position (M,), with the confidence that ranks it."""
        draws = None
        if self.config.temperature:
            draws = torch.from_numpy(self._draws(self.token_keys, row, position))
            draws = draws.to(logits.device)
        if self.removed:
            logits[:, self.removed] = -torch.inf
        sampled = sample_candidates(logits, draws, self.config.temperature, self.forbidden)
        tokens, bits = sampled.cpu().numpy()  # the only device-to-host transfer of a step
        confidence = bits.view(np.float32)
        invalid = np.isnan(confidence)
        if invalid.any():
            first = row[invalid].min()
            raise UserError(
                f"row {first}, step {self.state.step[first]}: the model's logits are not "
                "finite; look for NaN in its weights or overflow in its dtype"
            )
        if self.state.rule.is_random:
            confidence = self._draws(self.position_keys, row, position)
        return tokens.astype(np.int64), confidence

    def _draws(self, keys: Keys, row: Ints, position: Ints) -> Floats:
        return uniform(keys[row], self.state.step[row], position)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Generator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
