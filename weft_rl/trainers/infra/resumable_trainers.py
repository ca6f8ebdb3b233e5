"""The trainers of the pipeline: metrics, atomic checkpoints, NaN guard. B batch, L sequence."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers.trainer_pt_utils import LengthGroupedSampler

from weft_rl.seeding import seed_for
from weft_rl.trainers.cold_start import ColdStartTrainer
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.infra.nonfinite_guard import NonFiniteGuard
from weft_rl.trainers.infra.token_entropy_log import TokenTable
from weft_rl.trainers.resume_state import SetEpoch
from weft_rl.trainers.weft_loss import SequenceLosses


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


class StepMeans:
    """Means per optimizer step over all processes, collected until the next metric line."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._sums: dict[str, Tensor] = {}  # of this step: total, count
        self.steps: dict[str, list[float]] = {}  # means of the steps since the last line

    def add(self, **parts: tuple[Tensor, Tensor]) -> None:
        """Add a batch's total () and count () of each name; collective."""
        for name, part in parts.items():
            sums = torch.stack([each.detach().float() for each in part])
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums
        if self.accelerator.sync_gradients:  # the step's last batch
            for name, sums in self._sums.items():
                total, count = self.accelerator.reduce(sums, reduction="sum")
                self.steps.setdefault(name, []).append((total / count).item())
            self._sums = {}


class ResumableColdStart(NonFiniteGuard, ColdStartTrainer):
    """Cold start with metrics, checkpoints and a NaN guard. order: of examples; None: random."""

    def __init__(self, *args: Any, order: LengthGroupedOrder | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.order = order
        if order is not None:
            self.add_callback(SetEpoch(order))
        self.means, self.norms = StepMeans(self.accelerator), list[float]()
        vocab_size = int(self.accelerator.unwrap_model(self.model).config.vocab_size)
        self.token_table = TokenTable(vocab_size)

    def records_of(self, inputs: dict[str, Any]) -> Sequence[int]:
        """Example indices, from 0."""
        return inputs["example_ids"][:, 1].tolist()

    def record(
        self, x0: Tensor, answer: Tensor, result: SequenceLosses, entropy: Tensor | None
    ) -> None:
        """Add a batch to the metrics and the token table."""
        tokens, counted = answer.sum(), answer.any(-1, keepdim=True)
        total = torch.where(counted, result.beta_ref, 0.0).sum()
        parts = {
            "beta_ref": (total, counted.sum()),
            "mask_fraction": ((result.masked & answer).sum(), tokens),
        }
        if self.recipe.statistic == "entropy" and entropy is not None:
            parts["token_entropy"] = torch.where(answer, entropy, 0.0).sum(), tokens
            self.token_table.add(x0, answer, entropy)
        self.means.add(**parts)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last line."""
        if "loss" in logs:
            logs |= {name: fmean(values) for name, values in self.means.steps.items()}
            if self.norms:
                logs["grad_norm_max"], logs["grad_norm_mean"] = max(self.norms), fmean(self.norms)
                logs["grad_norm_median"] = median(self.norms)
            self.means.steps, self.norms = {}, []
        super().log(logs, start_time)

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Collect every gradient norm; transformers logs only one per line."""
        norm = super()._get_grad_norm(*args, **kwargs)
        self.norms.append(float(norm))
        return norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    def metric_sums(self) -> dict[str, list[float]]:
        """Add the means and gradient norms since the last line."""
        return super().metric_sums() | self.means.steps | {"grad_norm": self.norms}

    def restore_metric_sums(self, sums: dict[str, list[float]]) -> None:
        """Restore means and gradient norms."""
        super().restore_metric_sums(sums)
        self.norms = sums.pop("grad_norm")
        self.means.steps = sums

    def save_resume_state(self, folder: Path) -> None:
        """Add this process' token table."""
        super().save_resume_state(folder)
        if self.recipe.statistic == "entropy":
            self.token_table.save(folder, self.rank)

    def load_resume_state(self, folder: Path) -> None:
        """Restore the token table."""
        super().load_resume_state(folder)
        self.token_table.load(folder, self.rank)


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
