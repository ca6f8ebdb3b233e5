"""Order of the examples that groups them by length."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from weft_rl.seeding import seed_for


class LengthGroupedOrder(LengthGroupedSampler):
    """A random order in which neighbors have similar lengths; set `epoch` before an epoch.

    The order depends on (seed, epoch) only: transformers' own draws from the global generator,
    which differs after a resume. lengths: tokens of each example. batch_size: examples of an
    optimizer step, on all devices. In each stretch of up to 50 steps the longest come first."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, lengths=[*lengths])
        self.seed, self.epoch = seed, 0

    def __iter__(self) -> Iterator[int]:
        """Indices of the examples, each once."""
        seed = seed_for(self.seed, "order", self.epoch)
        self.generator = torch.Generator().manual_seed(seed)
        return super().__iter__()
