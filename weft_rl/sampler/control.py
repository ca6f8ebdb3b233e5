"""Which positions of a completion are committed, how many, and when to stop: numpy, no model.

B rows, A of them unfinished, T completion tokens, K positions of a block, S steps per block."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from weft_rl.config.schema import SamplerConfig

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


class TraceEntry(TypedDict):
    """One committed token of a row."""

    step: int  # forwards that the row had had before
    position: int  # in the completion
    token: int
    confidence: float  # what it was chosen by: a probability, or the draw of random remasking


def quotas(masks: int, steps: int) -> Ints:
    """How many of a block's masks each of its steps commits: (S,), summing to `masks`.

    The first masks mod steps steps get one more than the rest. Source: LLaDA's sampler."""
    base, extra = divmod(masks, steps)
    return base + (np.arange(steps) < extra)


def most_confident(confidence: Floats, masked: Bools, count: Ints) -> Bools:
    """The `count` most confident masked positions of each row; ties go to the lowest index.

    confidence, masked (B, K); count (B,). Returns (B, K), all masks where they are fewer."""
    order = np.argsort(np.where(masked, -confidence, np.inf), axis=1, kind="stable")
    rank = order.argsort(axis=1)
    return masked & (rank < count[:, None])


def confident_enough(confidence: Floats, masked: Bools, threshold: float) -> Bools:
    """The masked positions at least this confident, and always the best one: (B, K).

    confidence, masked (B, K). Source: Fast-dLLM, confidence-aware parallel decoding."""
    best = most_confident(confidence, masked, np.ones(len(masked), dtype=np.int64))
    return best | (masked & (confidence >= threshold))


def reached_end(end: Bools, masked: Bools) -> Bools:
    """Whether a row's first end token is certain: it is there and no mask is left before it.

    end, masked (B, T). Returns (B,)."""
    return (end & (masked.cumsum(axis=1) == 0)).any(axis=1)


class Progress:
    """What is known of each row's completion, and where each row works next.

    Rows go on at their own pace and never see each other. tokens (B, T) int64, the mask token
    where masked; masked (B, T); step (B,) forwards that each row has had; trace: each row's
    commitments in order, or None."""

    def __init__(
        self, batch: int, config: SamplerConfig, mask_id: int, end_ids: Sequence[int]
    ) -> None:
        self.config, self.end_ids = config, list(end_ids)
        shape = (batch, config.gen_length)
        self.tokens = np.full(shape, mask_id, dtype=np.int64)
        self.masked = np.ones(shape, dtype=bool)
        self.step = np.zeros(batch, dtype=np.int64)
        steps_per_block = config.steps * config.block_length // config.gen_length
        # at its start every block is all masks, so that each row and block has the same quotas
        self.quotas = quotas(config.block_length, steps_per_block)
        self.trace: list[list[TraceEntry]] | None = None
        if config.trace:
            self.trace = [[] for _ in range(batch)]

    def ends(self) -> Bools:
        """Where the end tokens are: (B, T)."""
        return np.isin(self.tokens, self.end_ids)

    def unfinished(self) -> Ints:
        """The rows that need another forward: (A,), ascending."""
        open_rows = self.masked.any(axis=1)
        if self.config.early_stop:
            open_rows &= ~reached_end(self.ends(), self.masked)
        return np.flatnonzero(open_rows)

    def positions(self, rows: Ints) -> Ints:
        """The block in which each of `rows` (A,) works, as positions in the completion: (A, K).

        It holds the row's first mask: a block is finished before the next one begins."""
        width = self.config.block_length
        start = self.masked[rows].argmax(axis=1) // width * width
        return start[:, None] + np.arange(width)

    def commit(self, rows: Ints, candidate: Ints, confidence: Floats) -> None:
        """Commit the best candidates of each row's block, for good; this is a row's step.

        rows (A,); candidate, confidence (A, K)."""
        positions = self.positions(rows)
        masked = self.masked[rows[:, None], positions]
        if self.config.threshold is None:
            count = self.quotas[self.step[rows] % len(self.quotas)]
            chosen = most_confident(confidence, masked, count)
        else:
            chosen = confident_enough(confidence, masked, self.config.threshold)
        row, column = np.nonzero(chosen)
        position, token = positions[row, column], candidate[row, column]
        row = rows[row]
        self.tokens[row, position] = token
        self.masked[row, position] = False
        if self.trace is not None:
            entries = zip(self.step[row], position, token, confidence[chosen], strict=True)
            for i, (step, where, what, sure) in zip(row, entries, strict=True):
                self.trace[i].append(
                    TraceEntry(
                        step=int(step), position=int(where), token=int(what), confidence=float(sure)
                    )
                )
        self.step[rows] += 1

    def finish(self) -> Ints:
        """Fill what early stopping left open with the end token; tokens before the end: (B,)."""
        self.tokens[self.masked] = self.end_ids[0]
        self.masked[:] = False
        ends = self.ends()
        return np.where(ends.any(axis=1), ends.argmax(axis=1), self.config.gen_length)
