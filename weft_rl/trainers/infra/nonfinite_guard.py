"""Guard against NaN and infinity: stops the run or skips steps."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from weft_rl.diffusion.tensor_checks import NonFiniteError
from weft_rl.errors import UserError
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.trainers.infra.atomic_checkpoints import ResumableTrainer

# Record ids in a message; a rollout has hundreds.
_MAX_NAMED = 8
_SKIPPED = "skipped_steps"


class NonFiniteGuard(ResumableTrainer):
    """Mixin that checks loss and gradient before each optimizer step.

    skip_steps: number of steps that may be skipped per stage; one more raises UserError with step,
    records and newest checkpoint. The check needs no communication: a NaN loss gives NaN gradients
    on every process."""

    def __init__(self, *args: Any, skip_steps: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_steps, self.skipped = skip_steps, 0
        # of this step: record ids and finite loss of each micro-batch
        self._micro_batches: list[tuple[Sequence[Any], Tensor]] = []

    def records_of(self, inputs: dict[str, Any]) -> Sequence[Any]:
        """Record ids of a micro-batch, for messages."""
        raise NotImplementedError

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Loss () of a micro-batch; NaN if infinite, since its gradient may be finite."""
        records = self.records_of(inputs)
        try:
            loss: Any = super().compute_loss(model, inputs, *args, **kwargs)
        except NonFiniteError as error:
            step = self.state.global_step + 1
            raise UserError(
                f"{self.stage}, step {step}: the entropies are not finite ({error}; records "
                f"{', '.join(map(str, records))}); lower the learning rate, or check these records"
            ) from error
        finite = loss.detach().isfinite()
        self._micro_batches.append((records, finite))
        return loss * torch.where(finite, 1.0, math.nan)  # a factor of 1 changes no bit

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Check the gradient norm; transformers calls this after clipping, before the step."""
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(norm):
            self._stop_or_skip(model)
        self._micro_batches.clear()
        return norm

    def _stop_or_skip(self, model: nn.Module) -> None:
        bad = [records for records, finite in self._micro_batches if not finite]
        chosen = bad or [records for records, _ in self._micro_batches]
        parts = gather_object([(bool(bad), [str(each) for records in chosen for each in records])])
        in_loss = any(has_bad for has_bad, _ in parts)
        # if one process has a non-finite loss, only its records are to blame
        names = [name for has_bad, part in parts if has_bad == in_loss for name in part]
        listed = ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
        what, step = "the loss" if in_loss else "the gradient", self.state.global_step + 1
        line = f"{self.stage}, step {step}: {what} is not finite (records {listed})"
        if self.skipped == self.skip_steps:
            last = newest_checkpoint(self.run, self.stage)
            raise UserError(
                f"{line}; the last good checkpoint is {last or 'the initial one'}; lower the "
                f"learning rate ({self.args.learning_rate}), check these records, or skip such "
                f"steps with reliability.skip_steps={self.skip_steps + 1}"
            )
        self.skipped += 1
        for parameter in model.parameters():
            parameter.grad = None  # the optimizer skips parameters without a gradient
        if self.is_world_process_zero():
            left = self.skip_steps - self.skipped
            sys.stderr.write(f"{line}; skipped, {left} more allowed\n")

    def metric_sums(self) -> dict[str, list[float]]:
        """Add the number of skipped steps."""
        return super().metric_sums() | {_SKIPPED: [self.skipped]}

    def restore_metric_sums(self, sums: dict[str, list[float]]) -> None:
        """Restore the number of skipped steps."""
        self.skipped = int(sums.pop(_SKIPPED)[0])
        super().restore_metric_sums(sums)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log skipped steps, and reset a non-finite loss, which transformers keeps summing."""
        if not math.isfinite(logs.get("loss", 0.0)):
            self._tr_loss.zero_()
        if self.skipped and "loss" in logs:
            logs[_SKIPPED] = self.skipped
        super().log(logs, start_time)
