"""Steps whose loss or gradient is no number: stopped at, or passed over a few times."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import Trainer

from weft_rl.errors import UserError
from weft_rl.runs.folder import newest_checkpoint

# Records named in a message; a rollout has hundreds.
_NAMED = 8


class FiniteSteps(Trainer):
    """Looks at each optimizer step before it turns all weights into NaN.

    run folder and stage are set after building. skip_steps: so many steps of the stage are passed
    over, their gradients dropped; one more raises UserError with step, records and the newest
    checkpoint. The check costs no communication: a loss that is no number makes the gradients NaN,
    which reach every process with them."""

    run: Path
    stage: str
    skip_steps: int = 0
    skipped: int = 0
    # of this step so far: the records of each micro-batch, and whether its loss is finite
    _seen: tuple[tuple[Sequence[Any], Tensor], ...] = ()

    def checked(self, loss: Tensor, records: Sequence[Any]) -> Tensor:
        """The loss () of a micro-batch, and remembered with its records until the step's end."""
        finite = loss.detach().isfinite()
        self._seen = (*self._seen, (records, finite))
        # an infinite loss may have a finite gradient; a constant factor of 1 changes no bit
        return loss * torch.where(finite, 1.0, math.nan)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Transformers asks for each step's gradient norm here, after clipping, before the step."""
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(norm):
            self._not_finite(model)
        self._seen = ()
        return norm

    def _not_finite(self, model: nn.Module) -> None:
        bad = [records for records, finite in self._seen if not finite]
        every = [records for records, _ in self._seen]
        mine = [str(record) for records in bad or every for record in records]
        told = gather_object([(bool(bad), mine)])
        what = "the loss" if any(loss for loss, _ in told) else "the gradient"
        # where the loss of one process is at fault, the records of the others are not
        names = [name for loss, own in told if loss or what == "the gradient" for name in own]
        listed = ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
        step = self.state.global_step + 1
        line = f"{self.stage}, step {step}: {what} is not finite (records {listed})"
        if self.skipped == self.skip_steps:
            last = newest_checkpoint(self.run, self.stage)
            raise UserError(
                f"{line}; the last good checkpoint is {last or 'the start'}; lower the learning "
                f"rate ({self.args.learning_rate}), look at these records, or pass over such steps "
                f"with reliability.skip_steps={self.skip_steps + 1}"
            )
        self.skipped += 1
        for parameter in model.parameters():
            parameter.grad = None  # an optimizer leaves alone what has none
        if self.is_world_process_zero():
            left = self.skip_steps - self.skipped
            sys.stderr.write(f"{line}; passed over, {left} more may be\n")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Transformers logs here, and goes on adding to the loss that it has logged."""
        if not math.isfinite(logs.get("loss", 0.0)):
            self._tr_loss.zero_()
        if self.skipped and "loss" in logs:
            logs["skipped_steps"] = self.skipped
        super().log(logs, start_time)
