"""RL whose prompt order and rollout survive an interruption bit for bit."""

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
    """TRL's prompt order, seeded by `epoch`, so that a resumed run continues it."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(seed_for(int(self.seed or 0), "order", self.epoch))
        return super().__iter__()


class ResumableRL(NonFiniteGuard, DiffuGRPOTrainer):
    """RL with atomic checkpoints that hold the rollout in use, and a guard against NaN."""

    def records_of(self, inputs: dict[str, Any]) -> Sequence[str]:
        """The ids of a micro-batch's records."""
        size = self.args.per_device_train_batch_size
        first = self._step % self.slices * size
        return self.rollout_ids[first : first + size]

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        """TRL's sampler, its order seeded by epoch."""
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
        """TRL's metrics since the last line."""
        return super().metric_sums() | self._metrics["train"]

    def restore_metric_sums(self, sums: dict[str, list[float]]) -> None:
        """Restore them."""
        super().restore_metric_sums(sums)
        self._metrics["train"].update(sums)

    def save_resume_state(self, folder: Path) -> None:
        """With the rollout in use."""
        super().save_resume_state(folder)
        state = {"step": self._step, "buffer": self._buffered_inputs, "ids": self.rollout_ids}
        torch.save(state, folder / f"rollout_{self.rank}.pt")

    def load_resume_state(self, folder: Path) -> None:
        """Restore it too."""
        super().load_resume_state(folder)
        # several processes' CPUs are called cpu:0, which torch.load does not know
        device = self.accelerator.device.type
        path = folder / f"rollout_{self.rank}.pt"
        state = torch.load(path, map_location=device, weights_only=True)
        self._step, self._buffered_inputs = state["step"], state["buffer"]
        self.rollout_ids = state["ids"]
