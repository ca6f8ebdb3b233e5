"""The order in which batches of records of like length are drawn."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from weft_rl.seeding import seed_for


class GroupedByLength(LengthGroupedSampler):
    """A random order in which neighbours are of like length; set `epoch` before a pass.

    The order within (seed, epoch) is always the same: transformers' own sampler draws from the
    global generator, which has moved on when a run is resumed. lengths: tokens of each record;
    batch_size: records of an optimizer step, on all devices, so that their number changes no
    step. Within a stretch of up to 50 steps the longest records come first."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, lengths=[*lengths])
        self.seed, self.epoch = seed, 0

    def __iter__(self) -> Iterator[int]:
        """Places in the data set, each once."""
        seed = seed_for(self.seed, "order", self.epoch)
        self.generator = torch.Generator().manual_seed(seed)
        return super().__iter__()
