"""Length-grouped order of the examples."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from weft_rl.seeding import seed_for


class LengthGroupedOrder(LengthGroupedSampler):
    """Random order in which neighbors have similar lengths; set `epoch` before an epoch.

    Depends on (seed, epoch) only; transformers' sampler uses the global generator, which differs
    after resuming. lengths: tokens per example. batch_size: examples per optimizer step, over all
    devices. The longest come first in each window of up to 50 steps."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, lengths=[*lengths])
        self.seed, self.epoch = seed, 0

    def __iter__(self) -> Iterator[int]:
        seed = seed_for(self.seed, "order", self.epoch)
        self.generator = torch.Generator().manual_seed(seed)
        return super().__iter__()
