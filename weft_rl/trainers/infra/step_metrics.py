"""An optimizer step's rows and means over them, however it is cut into batches and processes.

B rows of a process' batch."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


def count_rows(
    batches: Sequence[dict[str, Any]], accelerator: Accelerator
) -> tuple[list[dict[str, Any]], Tensor]:
    """A step's batches, just read, and its rows () over all processes; every process calls it.

    At the end of an epoch accelerate hands out some of its first rows again, so that every process
    has as many. They count in no step: the batch has `counted` (B,) bool, False for them."""
    marked, state = [*batches], accelerator.gradient_state
    if state.end_of_dataloader and state.remainder > 0:
        x0 = marked[-1]["x0"]
        # the new rows come first, process by process
        place = accelerator.process_index * len(x0) + torch.arange(len(x0), device=x0.device)
        marked[-1] = marked[-1] | {"counted": place < state.remainder}
    rows = [batch["counted"].sum() if "counted" in batch else len(batch["x0"]) for batch in marked]
    total = torch.tensor([int(count) for count in rows], device=accelerator.device).sum()
    return marked, accelerator.reduce(total, reduction="sum")


class StepMeans:
    """Means over each step's rows or tokens, of all processes, and over a metric line's steps."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._sums: dict[str, Tensor] = {}  # of this step: total and count
        self.steps: dict[str, list[float]] = {}  # the means of the steps since the last line

    def add(self, **parts: tuple[Tensor, Tensor]) -> None:
        """Take in a batch's total () and count () of each name; every process calls it."""
        for name, part in parts.items():
            sums = torch.stack([each.detach().float() for each in part])
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums
        if self.accelerator.sync_gradients:  # the step's last batch
            for name, sums in self._sums.items():
                total, count = self.accelerator.reduce(sums, reduction="sum")
                self.steps.setdefault(name, []).append((total / count).item())
            self._sums = {}
