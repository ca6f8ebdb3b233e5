"""RL with a NaN guard and atomic checkpoints."""

from collections.abc import Sequence
from typing import Any

from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.infra.nonfinite_guard import NonFiniteGuard


class ResumableRL(NonFiniteGuard, DiffuGRPOTrainer):
    """RL with a NaN guard and atomic checkpoints."""

    def records_of(self, inputs: dict[str, Any]) -> Sequence[str]:
        """Record ids of a micro-batch."""
        size = self.args.per_device_train_batch_size
        first = self._step % self.slices * size
        return self.rollout_ids[first : first + size]

    def metric_sums(self) -> dict[str, list[float]]:
        """Add TRL's metrics since the last line."""
        return super().metric_sums() | self._metrics["train"]

    def restore_metric_sums(self, sums: dict[str, list[float]]) -> None:
        """Restore TRL's metrics."""
        super().restore_metric_sums(sums)
        self._metrics["train"].update(sums)
