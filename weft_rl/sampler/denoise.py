"""Generating completions: which rows are worked on; `control` says what is committed.

N prompts, A of them worked on, P prompt and T completion tokens, M open positions, V vocabulary."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index

import numpy as np
import torch
from torch import Tensor, nn

from weft_rl.config.sampler import SamplerConfig
from weft_rl.errors import UserError
from weft_rl.sampler.model_runner import ModelRunner
from weft_rl.sampler.rng import stream_keys, uniform
from weft_rl.sampler.token_sampling import candidates
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

    tokens: Tensor  # (N, P + T) long, the prompts as they were given, then the completions
    completions: Tensor  # (N, T) long, without mask tokens
    lengths: Tensor  # (N,) long, tokens before the first end token; T where there is none
    forwards: int  # calls of the model, whatever the number of rows
    trace: list[list[TraceEntry]] | None  # each row's commitments in order, if asked for


@dataclass(frozen=True)
class Step:
    """What one step has committed, and how far sampling is."""

    rows: Ints  # (M,) of the prompts
    positions: Ints  # (M,) in the completion
    tokens: Ints  # (M,)
    confidences: Floats  # (M,)
    finished: int  # completions that are done
    total: int  # completions that there will be
    share: float  # of all work that is done, in [0, 1]; positions after an end count as done
    committed: int  # tokens so far
    forwards: int  # calls of the model so far
    seconds: float  # since the start


OnStep = Callable[[Step], None]


def generate(
    model: nn.Module,
    prompt_ids: Tensor,
    config: SamplerConfig,
    attention_mask: Tensor | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    *,
    batch_size: int | None = None,
    on_step: OnStep | None = None,
) -> SamplerOutput:
    """Complete each prompt by denoising T masks block by block.

    model: a masked language model of transformers, whose config names the mask and end tokens;
    prompt_ids (N, P) long; attention_mask (N, P), 0 on left padding; seeds (N,) ints, 0 .. N-1 if
    left out; batch_size rows are in work together, a finished one's place is taken by the next
    prompt; on_step is called after every step. A row depends on its prompt and its seed, not on
    padding, batch size or the other rows, up to the rounding of the model's products: bfloat16's
    tips one of two candidates that are nearly alike now and then. Candidates are drawn from
    softmax(logits / temperature) without the mask token; confidence is the float32 probability at
    temperature 1 over the whole vocabulary. With early_stop, tokens up to the end token are what
    they are without it. With cache="none" every step sees the whole canvas; caches approximate
    that. The model's modes and the global random state are left as they were. Raises ValueError
    for input that does not fit the model; UserError for canvases longer than its positions, and for
    logits that are not finite. Source: LLaDA's sampler, with ties to the lowest index; Fast-dLLM
    for caches, threshold and factor."""
    mask_id, end_ids = special_ids(model)
    visible = torch.ones_like(prompt_ids) if attention_mask is None else attention_mask.long()
    own_seeds = [*range(len(prompt_ids))] if seeds is None else [index(seed) for seed in seeds]
    check_input(model, prompt_ids, visible, own_seeds, config, mask_id)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    progress = DenoisingState(len(prompt_ids), config, mask_id, end_ids)
    slots = min(len(prompt_ids), batch_size or len(prompt_ids))
    with _evaluating(model), torch.no_grad():
        network = ModelRunner(model, prompt_ids, visible, mask_id, config, slots)
        sampler = _Sampler(network, progress, config, own_seeds, [mask_id])
        forwards = sampler.run(slots, on_step)
    lengths = torch.from_numpy(progress.finish()).to(prompt_ids.device)
    completions = torch.from_numpy(progress.tokens).to(prompt_ids.device)
    tokens = torch.cat([prompt_ids, completions], dim=1)
    trace = progress.trace() if config.trace else None
    return SamplerOutput(tokens, completions, lengths, forwards, trace)


class _Sampler:
    """The loop: rows in slots, a step of all of them, and who comes next."""

    def __init__(
        self,
        network: ModelRunner,
        progress: DenoisingState,
        config: SamplerConfig,
        seeds: Sequence[int],
        forbidden: list[int],
    ) -> None:
        self.network, self.progress, self.config = network, progress, config
        self.token_keys = stream_keys(seeds, "token")
        self.position_keys = stream_keys(seeds, "position")
        never = config.end_tokens == "never"
        self.forbidden = [*forbidden, *progress.end_ids] if never else forbidden
        # as with LLaDA's logits_eos_inf, the confidences are those of a vocabulary without it
        self.removed = progress.end_ids[:1].tolist() if config.end_tokens == "no_eos" else []

    def run(self, slots: int, on_step: OnStep | None) -> int:
        """Complete every row, `slots` at a time; returns the number of forwards."""
        total, begun = len(self.progress.tokens), time.perf_counter()
        rows, waiting = np.arange(slots), np.arange(slots, total)
        forwards = committed = 0
        while len(rows):
            own, where = self._step(rows)
            forwards, committed = forwards + 1, committed + len(where.index)
            masked = self.progress.masked[rows]
            alive = self.progress.unfinished(rows)
            rows, waiting = self._seat(rows, alive, waiting)
            if on_step is not None:
                row, position = own[where.index], where.position
                finished = total - int(self.progress.unfinished(rows).sum()) - len(waiting)
                # seats that were taken anew have begun nothing yet
                share = (finished + (1 - masked[alive].mean(axis=1)).sum()) / total
                on_step(
                    Step(
                        row,
                        position,
                        self.progress.tokens[row, position],
                        self.progress.confidence[row, position],
                        finished=finished,
                        total=total,
                        share=float(share),
                        committed=committed,
                        forwards=forwards,
                        seconds=time.perf_counter() - begun,
                    )
                )
        return forwards

    def _seat(self, rows: Ints, alive: Bools, waiting: Ints) -> tuple[Ints, Ints]:
        """The rows of the next step (A,), slot by slot, and who waits then."""
        free = np.flatnonzero(~alive)
        taken = free[: len(waiting)]
        rows = rows.copy()
        rows[taken] = waiting[: len(taken)]
        # with one shape of batch, finished rows keep their places until there is nobody else
        if len(taken) < len(free) and not (self.config.compile and len(free) < len(rows)):
            kept = np.setdiff1d(np.arange(len(rows)), free[len(taken) :])
            self.network.keep(kept)
            rows = rows[kept]
        return rows, waiting[len(taken) :]

    def _step(self, rows: Ints) -> tuple[Ints, MaskedPositions]:
        """One forward and what it commits: the rows that had it, and their new positions.

        Rows whose cache is to be filled wait for those in the middle of a block: one forward of
        many rows takes less time than two of few, and no row's result depends on when it is run."""
        progress, fixed = self.progress, self.config.compile
        needs_all = progress.needs_all(rows)
        working = progress.unfinished(rows) if fixed else np.ones(len(rows), dtype=bool)
        everything = bool(needs_all[working].all())
        chosen = np.flatnonzero(working if everything else working & ~needs_all)
        own = rows[chosen]
        where = progress.open(own)
        # of a batch of one shape all rows are sent; what those not chosen give is not used
        sent, asked = rows, MaskedPositions(chosen[where.index], where.position)
        if not fixed:
            sent, asked = own, where
        completions = progress.tokens[sent]
        if everything and not progress.step[sent].any():
            logits = self.network.beginning(sent, completions, asked)
        elif everything:
            logits = self.network.everything(sent, completions, asked)
        else:
            slots = None if len(sent) == len(rows) else chosen
            start = progress.starts(sent)
            logits = self.network.window(sent, slots, completions, asked, start)
        draws = None
        if self.config.temperature:
            draws = self._draws(self.token_keys, own[where.index], where.position)
            draws = torch.from_numpy(draws).to(logits.device)
        if self.removed:
            logits[:, self.removed] = -torch.inf
        found = candidates(logits, draws, self.config.temperature, self.forbidden)
        # the one transfer of a step; tokens, and the bits of their probabilities
        host = found.cpu().numpy()
        confidence = host[1].view(np.float32)
        self._require_valid(confidence, own[where.index])
        if self.config.remasking == "random":
            confidence = self._draws(self.position_keys, own[where.index], where.position)
        return own, progress.commit(own, where, host[0].astype(np.int64), confidence)

    def _draws(self, keys: np.ndarray, row: Ints, position: Ints) -> Floats:
        return uniform(keys[row], self.progress.step[row], position)

    def _require_valid(self, confidence: Floats, row: Ints) -> None:
        invalid = np.isnan(confidence)
        if invalid.any():
            first = row[invalid].min()
            raise UserError(
                f"row {first}, step {self.progress.step[first]}: the model's logits are not "
                "finite; look for NaN in its weights or overflow in its dtype"
            )


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """Dropout and the like off inside; afterwards each module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
