"""RL with bit-for-bit resume of prompt order and rollout."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from trl.trainer.utils import RepeatSampler

from weft_rl.seeding import seed_for
from weft_rl.trainers.cold_start import SetEpoch
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.infra.nonfinite_guard import NonFiniteGuard


class EpochSampler(RepeatSampler):
    """TRL's prompt order, seeded by `epoch` so that a resumed run continues it."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(seed_for(int(self.seed or 0), "order", self.epoch))
        return super().__iter__()


class ResumableRL(NonFiniteGuard, DiffuGRPOTrainer):
    """RL with a NaN guard and atomic checkpoints that include the current rollout."""

    def records_of(self, inputs: dict[str, Any]) -> Sequence[str]:
        """Record ids of a micro-batch."""
        size = self.args.per_device_train_batch_size
        first = self._step % self.slices * size
        return self.rollout_ids[first : first + size]

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        source: Any = self.train_dataset if dataset is None else dataset
        sampler = EpochSampler(
            data_source=source,
            mini_repeat_count=self.group,
            batch_size=self.rollout_rows // self.group,
            repeat_count=self.num_iterations * self.slices,
            shuffle=bool(self.shuffle_dataset),
            seed=self.args.seed,
        )
        self.add_callback(SetEpoch(sampler))
        return sampler

    def metric_sums(self) -> dict[str, list[float]]:
        """Add TRL's metrics since the last line."""
        return super().metric_sums() | self._metrics["train"]

    def restore_metric_sums(self, sums: dict[str, list[float]]) -> None:
        """Restore TRL's metrics."""
        super().restore_metric_sums(sums)
        self._metrics["train"].update(sums)

    def save_resume_state(self, folder: Path) -> None:
        """Add the current rollout."""
        super().save_resume_state(folder)
        state = {"step": self._step, "buffer": self._buffered_inputs, "ids": self.rollout_ids}
        torch.save(state, folder / f"rollout_{self.rank}.pt")

    def load_resume_state(self, folder: Path) -> None:
        """Restore the rollout."""
        super().load_resume_state(folder)
        # with several processes CPUs are named cpu:0, which torch.load rejects
        device = self.accelerator.device.type
        path = folder / f"rollout_{self.rank}.pt"
        state = torch.load(path, map_location=device, weights_only=True)
        self._step, self._buffered_inputs = state["step"], state["buffer"]
        self.rollout_ids = state["ids"]
