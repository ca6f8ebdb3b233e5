"""Which positions of a completion are committed, how many, and when to stop: numpy, no model.

N rows in all, A of them worked on now, T completion tokens, K positions of a block, S steps per
block, M open positions of the A rows together."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from weft_rl.config.sampler import SamplerConfig

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.floating]

# Below every confidence, and finite: infinity stands for what is not masked.
_LAST = -1.0


class TraceEntry(TypedDict):
    """One committed token of a row."""

    step: int  # forwards that the row had had before
    position: int  # in the completion
    token: int
    confidence: float  # what it was chosen by: a probability, or the draw of random remasking


class MaskedPositions(NamedTuple):
    """The masked positions of some rows' blocks, row after row, ascending within a row."""

    index: Ints  # (M,) which of the rows that were asked for
    position: Ints  # (M,) in the completion


def num_transfer_tokens(masks: int, steps: int) -> Ints:
    """How many of a block's masks each of its steps commits: (S,), summing to `masks`.

    The first masks mod steps steps get one more than the rest. Source: LLaDA's sampler."""
    base, extra = divmod(masks, steps)
    return base + (np.arange(steps) < extra)


def ranks(confidence: Floats, masked: Bools) -> Ints:
    """Each masked position's place among its row's by confidence, 0 the best: (A, K).

    confidence, masked (A, K). Ties go to the lowest index; what is not masked comes last."""
    order = np.argsort(np.where(masked, -confidence, np.inf), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(order.shape[1])[None], axis=1)
    return np.where(masked, place, order.shape[1])


def most_confident(confidence: Floats, masked: Bools, count: Ints) -> Bools:
    """The `count` most confident masked positions of each row; ties go to the lowest index.

    confidence, masked (A, K); count (A,). Returns (A, K), all masks where they are fewer."""
    return masked & (ranks(confidence, masked) < count[:, None])


def confident_enough(confidence: Floats, masked: Bools, threshold: float) -> Bools:
    """The masked positions at least this confident, and always the best one: (A, K).

    confidence, masked (A, K). Source: Fast-dLLM, confidence-aware parallel decoding."""
    return masked & ((ranks(confidence, masked) == 0) | (confidence >= threshold))


def jointly_confident(confidence: Floats, masked: Bools, factor: float) -> Bools:
    """The best masked positions while the r-th has confidence >= 1 - factor / (r + 1): (A, K).

    confidence, masked (A, K); r counts from 1, and the first is always taken. The more tokens are
    committed together, the surer each must be. Source: Fast-dLLM, factor-based decoding."""
    place = ranks(confidence, masked)
    unsure = masked & (place > 0) & (confidence < 1 - factor / (place + 2))
    first_unsure = np.where(unsure, place, masked.shape[1]).min(axis=1)
    return masked & (place < first_unsure[:, None])


def reached_end(end: Bools, masked: Bools) -> Bools:
    """Whether a row's first end token is certain: it is there and no mask is left before it.

    end, masked (A, T). Returns (A,)."""
    first_mask = np.where(masked.any(axis=1), masked.argmax(axis=1), masked.shape[1])
    return end.any(axis=1) & (end.argmax(axis=1) < first_mask)


class DenoisingState:
    """What is known of each row's completion, and where each row works next.

    Rows go on at their own pace and never see each other. tokens (N, T) int64, the mask token
    where masked; masked and end (N, T), where masks and end tokens are; step (N,) forwards that
    each row has had, block_step (N,) those in the block where it works."""

    def __init__(
        self, rows: int, config: SamplerConfig, mask_id: int, end_ids: Sequence[int]
    ) -> None:
        self.config, self.end_ids = config, np.array(end_ids)
        shape = (rows, config.gen_length)
        self.tokens = np.full(shape, mask_id, dtype=np.int64)
        self.masked = np.ones(shape, dtype=bool)
        self.end = np.zeros(shape, dtype=bool)
        self.step = np.zeros(rows, dtype=np.int64)
        self.block_step = np.zeros(rows, dtype=np.int64)
        steps_per_block = config.steps * config.block_length // config.gen_length
        # at its start every block is all masks, so that each row and block has the same quotas
        self.num_transfer_tokens = num_transfer_tokens(config.block_length, steps_per_block)
        # of each commitment: its step, -1 where there was none, and what it was chosen by
        self.committed_at = np.full(shape, -1, dtype=np.int64)
        self.confidence = np.zeros(shape, dtype=np.float64)

    def unfinished(self, rows: Ints) -> Bools:
        """Which of `rows` need another forward: (A,)."""
        masked = self.masked[rows]
        more: Bools = np.asarray(masked.any(axis=1))
        if self.config.early_stop:
            more &= ~reached_end(self.end[rows], masked)
        return more

    def starts(self, rows: Ints) -> Ints:
        """Where the block begins in which each of `rows` works: (A,).

        It holds the row's first mask: a block is finished before the next one begins."""
        width = self.config.block_length
        return self.masked[rows].argmax(axis=1) // width * width

    def needs_all(self, rows: Ints) -> Bools:
        """Which of `rows` need a forward over the whole canvas now, to fill their cache: (A,)."""
        if self.config.cache == "none":
            return np.ones(len(rows), dtype=bool)
        step, every = self.block_step[rows], self.config.refresh_every
        return step == 0 if every is None else step % every == 0

    def open(self, rows: Ints) -> MaskedPositions:
        """The positions whose tokens the next forward of `rows` (A,) predicts."""
        masked, start = self._block(rows)
        index, column = np.nonzero(masked)
        return MaskedPositions(index, start[index] + column)

    def commit(
        self, rows: Ints, where: MaskedPositions, candidate: Ints, confidence: Floats
    ) -> MaskedPositions:
        """Commit the best candidates of each row's block, for good; this is a row's step.

        rows (A,); where: their open positions; candidate, confidence (M,). Returns what was
        committed."""
        masked, start = self._block(rows)
        grid = np.zeros(masked.shape)
        grid[where.index, where.position - start[where.index]] = self._waits(candidate, confidence)
        chosen = self._choose(rows, grid, masked)
        kept = chosen[where.index, where.position - start[where.index]]
        index, position = where.index[kept], where.position[kept]
        row = rows[index]
        self.tokens[row, position] = candidate[kept]
        self.masked[row, position] = False
        self.end[row, position] = self._is_end(candidate[kept])
        self.committed_at[row, position] = self.step[row]
        self.confidence[row, position] = confidence[kept]
        self.step[rows] += 1
        through = (chosen == masked).all(axis=1)
        self.block_step[rows] = np.where(through, 0, self.block_step[rows] + 1)
        return MaskedPositions(index, position)

    def _block(self, rows: Ints) -> tuple[Bools, Ints]:
        """Each row's masks within its block (A, K), and where the block begins (A,)."""
        start = self.starts(rows)
        columns = start[:, None] + np.arange(self.config.block_length)
        return self.masked[rows[:, None], columns], start

    def _waits(self, candidate: Ints, confidence: Floats) -> Floats:
        """The confidences that decide: an end token waits for all others if it is to come late."""
        if self.config.end_tokens != "late":
            return confidence
        return np.where(self._is_end(candidate), _LAST, confidence)

    def _is_end(self, tokens: Ints) -> Bools:
        return (tokens[:, None] == self.end_ids).any(axis=1)

    def _choose(self, rows: Ints, confidence: Floats, masked: Bools) -> Bools:
        config = self.config
        if config.threshold is not None:
            return confident_enough(confidence, masked, config.threshold)
        if config.factor is not None:
            return jointly_confident(confidence, masked, config.factor)
        return most_confident(confidence, masked, self.num_transfer_tokens[self.block_step[rows]])

    def finish(self) -> Ints:
        """Fill what early stopping left open with the end token; tokens before the end: (N,)."""
        self.tokens[self.masked] = self.end_ids[0]
        self.end |= self.masked
        self.masked[:] = False
        return np.where(self.end.any(axis=1), self.end.argmax(axis=1), self.config.gen_length)

    def trace(self) -> list[list[TraceEntry]]:
        """Each row's commitments, by step and then by position."""
        return [
            [self.entry(row, place) for place in np.argsort(at, kind="stable") if at[place] >= 0]
            for row, at in enumerate(self.committed_at)
        ]

    def entry(self, row: int, position: int) -> TraceEntry:
        """What was committed at a position of a row."""
        return TraceEntry(
            step=int(self.committed_at[row, position]),
            position=int(position),
            token=int(self.tokens[row, position]),
            confidence=float(self.confidence[row, position]),
        )
