"""Unmasking decisions in numpy: which positions, how many, when a row ends.

N rows, A of them in a step, T completion tokens, K positions of a block, M masked positions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from weft_rl.config.sampler import SamplerConfig

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


class TraceEntry(TypedDict):
    """An unmasked token of a row."""

    step: int  # number of earlier forwards of the row
    position: int  # in the completion
    token: int
    confidence: float  # selection score: a probability, or a uniform draw for random remasking


class MaskedPositions(NamedTuple):
    """Masked positions in the current blocks of some rows, by row, then ascending."""

    index: Ints  # (M,) index into the rows
    position: Ints  # (M,) in the completion


def num_transfer_tokens(masks: int, steps: int) -> Ints:
    """Return how many of a block's masks each step unmasks: (steps,), summing to `masks`.

    The first masks % steps steps unmask one more. Source: LLaDA's sampler."""
    base, extra = divmod(masks, steps)
    return base + (np.arange(steps) < extra)


def _ranks(confidence: Floats, masked: Bools) -> Ints:
    """Rank masked positions by confidence: (A, K), K if not masked; ties go to the lowest index."""
    order = np.argsort(np.where(masked, -confidence, np.inf), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    return np.where(masked, rank, order.shape[1])


def most_confident(confidence: Floats, masked: Bools, count: Ints) -> Bools:
    """Select the `count` (A,) most confident masked positions: (A, K). Source: LLaDA's sampler."""
    return masked & (_ranks(confidence, masked) < count[:, None])


def confident_enough(confidence: Floats, masked: Bools, threshold: float) -> Bools:
    """Select masked positions with confidence >= threshold, at least the best one: (A, K).

    Source: Fast-dLLM, confidence-aware parallel decoding."""
    return masked & ((_ranks(confidence, masked) == 0) | (confidence >= threshold))


def jointly_confident(confidence: Floats, masked: Bools, factor: float) -> Bools:
    """Select the best masked positions while the n-th has confidence >= 1 - factor / (n + 1).

    Always selects the best one. Returns (A, K). Source: Fast-dLLM, factor-based decoding."""
    rank = _ranks(confidence, masked)
    unsure = masked & (rank > 0) & (confidence < 1 - factor / (rank + 2))
    first_unsure = np.where(unsure, rank, masked.shape[1]).min(axis=1)
    return masked & (rank < first_unsure[:, None])


class UnmaskingRule(NamedTuple):
    """Selection of the positions that a step unmasks.

    select(confidence (A, K), masked (A, K), amount) -> (A, K) bool. amount: the value of the rule's
    option; for rules of sampler.remasking, the number of tokens in this step."""

    select: Callable[[Floats, Bools, Any], Bools]
    is_random: bool = False  # confidences are replaced by uniform draws


RULES: dict[str, UnmaskingRule] = {
    "low_confidence": UnmaskingRule(most_confident),
    "random": UnmaskingRule(most_confident, is_random=True),
    "threshold": UnmaskingRule(confident_enough),
    "factor": UnmaskingRule(jointly_confident),
}


def rule_of(config: SamplerConfig) -> tuple[UnmaskingRule, float | None]:
    """Return the configured rule, and the value of its option if it has one."""
    for name, rule in RULES.items():
        value = getattr(config, name, None)
        if value is not None:
            return rule, value
    return RULES[config.remasking], None


def reached_end(end: Bools, masked: Bools) -> Bools:
    """Return whether each row has an end token without earlier masks: (A,). end, masked (A, T)."""
    first_mask = np.where(masked.any(axis=1), masked.argmax(axis=1), masked.shape[1])
    return end.any(axis=1) & (end.argmax(axis=1) < first_mask)


class DenoisingState:
    """Completions in progress. Rows advance independently.

    tokens (N, T) int64, the mask token where masked; masked and end (N, T) bool; step and
    block_step (N,): forwards per row, in total and in its current block."""

    def __init__(
        self, rows: int, config: SamplerConfig, mask_id: int, end_ids: Sequence[int]
    ) -> None:
        self.config, self.end_ids = config, np.array(end_ids)
        self.rule, self.limit = rule_of(config)
        shape = (rows, config.gen_length)
        self.tokens = np.full(shape, mask_id, dtype=np.int64)
        self.masked = np.ones(shape, dtype=bool)
        self.end = np.zeros(shape, dtype=bool)
        self.step = np.zeros(rows, dtype=np.int64)
        self.block_step = np.zeros(rows, dtype=np.int64)
        steps_per_block = config.steps * config.block_length // config.gen_length
        # blocks start fully masked, so all share this schedule
        self.num_transfer_tokens = num_transfer_tokens(config.block_length, steps_per_block)
        self.unmask_step = np.full(shape, -1, dtype=np.int64)  # -1: still masked
        self.confidence = np.zeros(shape, dtype=np.float64)  # see TraceEntry.confidence

    def unfinished(self, rows: Ints) -> Bools:
        """Return whether each row needs another forward: (A,)."""
        masked = self.masked[rows]
        unfinished: Bools = np.asarray(masked.any(axis=1))
        if self.config.early_stop:
            unfinished &= ~reached_end(self.end[rows], masked)
        return unfinished

    def block_starts(self, rows: Ints) -> Ints:
        """Return the start of each row's current block, the one with its first mask: (A,)."""
        width = self.config.block_length
        return self.masked[rows].argmax(axis=1) // width * width

    def needs_full_forward(self, rows: Ints) -> Bools:
        """Return whether each row needs a forward over its full canvas, to fill its cache: (A,)."""
        if self.config.cache == "none":
            return np.ones(len(rows), dtype=bool)
        step, every = self.block_step[rows], self.config.refresh_every
        return step == 0 if every is None else step % every == 0

    def masked_positions(self, rows: Ints) -> MaskedPositions:
        """Return the masked positions of the current blocks, which the next forward predicts."""
        masked, start = self._blocks(rows)
        index, column = np.nonzero(masked)
        return MaskedPositions(index, start[index] + column)

    def unmask(
        self, rows: Ints, where: MaskedPositions, candidates: Ints, confidence: Floats
    ) -> MaskedPositions:
        """Unmask the selected candidates, advance one step, and return their positions.

        rows (A,); where: their masked positions; candidates, confidence (M,)."""
        masked, start = self._blocks(rows)
        column = where.position - start[where.index]
        scores = np.zeros(masked.shape)
        scores[where.index, column] = confidence
        if self.config.end_tokens == "late":
            is_end = np.isin(candidates, self.end_ids)
            scores[where.index[is_end], column[is_end]] = -1.0  # below all confidences
        per_step = self.num_transfer_tokens
        # rules with a limit may exceed the number of steps, so they ignore the schedule
        amount = per_step[self.block_step[rows]] if self.limit is None else self.limit
        selected = self.rule.select(scores, masked, amount)
        kept = selected[where.index, column]
        index, position = where.index[kept], where.position[kept]
        row, tokens = rows[index], candidates[kept]
        self.tokens[row, position] = tokens
        self.masked[row, position] = False
        self.end[row, position] = np.isin(tokens, self.end_ids)
        self.unmask_step[row, position] = self.step[row]
        self.confidence[row, position] = confidence[kept]
        self.step[rows] += 1
        block_done = (selected == masked).all(axis=1)
        self.block_step[rows] = np.where(block_done, 0, self.block_step[rows] + 1)
        return MaskedPositions(index, position)

    def _blocks(self, rows: Ints) -> tuple[Bools, Ints]:
        """Return the masks of each row's current block (A, K), and its start (A,)."""
        start = self.block_starts(rows)
        columns = start[:, None] + np.arange(self.config.block_length)
        return self.masked[rows[:, None], columns], start

    def finish(self) -> Ints:
        """Replace remaining masks by the end token and return the lengths (N,)."""
        self.tokens[self.masked] = self.end_ids[0]
        self.end |= self.masked
        self.masked[:] = False
        return np.where(self.end.any(axis=1), self.end.argmax(axis=1), self.config.gen_length)

    def trace(self) -> list[list[TraceEntry]]:
        """Return the unmasked tokens of each row, by step, then by position."""
        return [
            [
                TraceEntry(
                    step=int(steps[position]),
                    position=int(position),
                    token=int(self.tokens[row, position]),
                    confidence=float(self.confidence[row, position]),
                )
                for position in np.argsort(steps, kind="stable")
                if steps[position] >= 0
            ]
            for row, steps in enumerate(self.unmask_step)
        ]
