"""Rollouts whose order and state survive an interruption, bit by bit."""

from collections.abc import Iterator
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from weft_rl.seeding import seed_for


class EpochSampler(RepeatSampler):
    """TRL's prompt order, seeded anew for each epoch, so that a resumed run finds its place."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(seed_for(int(self.seed or 0), "order", self.epoch))
        return super().__iter__()


class ResumableRollouts(GRPOTrainer):
    """Saves the rollout in use with a checkpoint, and takes the prompts up where they were."""

    slices: int
    group: int
    rollout_rows: int
    _ids: list[str]  # the records of the rollout in use, this process's rows

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        """TRL's sampler, its order seeded by epoch."""
        source: Any = self.train_dataset if dataset is None else dataset
        self._order = EpochSampler(
            data_source=source,
            mini_repeat_count=self.group,
            batch_size=self.rollout_rows // self.group,
            repeat_count=self.num_iterations * self.slices,
            shuffle=bool(self.shuffle_dataset),
            seed=self.args.seed,
        )
        return self._order

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers runs one epoch here; the order must be set before it is iterated."""
        self._order.epoch = int(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def _since_line(self) -> dict[str, list[float]]:
        """What the next metric line is of."""
        return dict(self._metrics["train"])

    def _restore_line(self, kept: dict[str, list[float]]) -> None:
        """Go on with the metric line that a checkpoint fell in the middle of."""
        self._metrics["train"].update(kept)

    def _save_rng_state(self, output_dir: str) -> None:
        """Transformers saves random states here, on every rank: the rollout in use goes along."""
        super()._save_rng_state(output_dir)
        rank = self.accelerator.process_index
        state = {"step": self._step, "buffer": self._buffered_inputs, "ids": self._ids}
        torch.save(state, f"{output_dir}/rollout_{rank}.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Transformers restores the optimizer here: the rollout in use is restored as well."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            rank, device = self.accelerator.process_index, self.accelerator.device
            path = f"{checkpoint}/rollout_{rank}.pt"
            # one of several processes' CPUs is called cpu:0, which torch.load does not know
            state = torch.load(path, map_location=device.type, weights_only=True)
            self._step, self._buffered_inputs = state["step"], state["buffer"]
            self._ids = state["ids"]
