"""Entropy pass over the masked answer. B batch, L sequence, K longest answer, V vocabulary."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weft_rl.diffusion.log_probs import reduced_logits
from weft_rl.diffusion.rates import token_statistic
from weft_rl.diffusion.recipes import Statistic

_FILE = "entropies.safetensors"


def answer_positions(answer: Tensor) -> Tensor:
    """Positions of each row's answer tokens, padded with others: (B, L) bool -> (B, K) long."""
    longest = int(answer.sum(-1).max())
    # stable: answer positions come first, in order
    return (~answer).long().argsort(dim=-1, stable=True)[:, :longest]


@torch.no_grad()
def entropy_pass(
    model: nn.Module,
    x0: Tensor,
    attention_mask: Tensor,
    answer: Tensor,
    mask_id: int,
    statistic: Statistic = "entropy",
    *,
    train_mode: bool = False,
    bf16: bool = False,
) -> Tensor:
    """Entropy or -log p(x0) of each answer token with the answer fully masked: (B, L) float32.

    0 outside the answer. x0, attention_mask: (B, L) long. answer: (B, L) bool. The head runs on
    answer positions only, in chunks. train_mode: enable dropout. bf16: bfloat16 autocast. Restores
    the model's mode. Raises NonFiniteError for NaN logits."""
    positions, training = answer_positions(answer), model.training
    ids, inside = x0.gather(1, positions), answer.gather(1, positions)

    def logits_fn(logits: Tensor, begin: int) -> Tensor:
        return token_statistic(statistic, logits, ids[:, begin : begin + logits.shape[1]])

    model.train(train_mode)
    try:
        with torch.autocast(x0.device.type, torch.bfloat16) if bf16 else nullcontext():
            noised = x0.masked_fill(answer, mask_id)
            values = reduced_logits(model, noised, attention_mask, positions, logits_fn).float()
    finally:
        model.train(training)
    output = torch.zeros(x0.shape, dtype=torch.float32, device=x0.device)
    return output.scatter(1, positions, torch.where(inside, values, 0.0))


def has_bf16_matmul(device: torch.device) -> bool:
    """Whether the device has native bfloat16 matmuls; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # missing for CPUs in torch 2.11
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class EntropyCache:
    """Cache of each example's statistics, refreshed every few epochs and saved with checkpoints.

    Every process holds all values and recomputes when any process must: examples move between
    processes each epoch, and a sharded forward pass is collective. refresh_epochs: epochs between
    two passes over an example; 1 disables the cache."""

    def __init__(self, refresh_epochs: int) -> None:
        self.refresh_epochs = refresh_epochs
        self.values: dict[int, Tensor] = {}  # example -> (answer length,) float32
        self.epochs: dict[int, int] = {}  # example -> the epoch of its values

    def get(self, example_ids: Tensor, answer: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Values (B, L) of a batch, cached, or recomputed if any is stale on any process.

        example_ids: (B, 2), epoch and example of each row. answer: (B, L) bool."""
        if self.refresh_epochs == 1:
            return compute()
        rows = example_ids.tolist()
        is_due = any(self.epochs.get(index, -1) != self._period(epoch) for epoch, index in rows)
        if any(gather_object([is_due])):
            values = compute()
            new = [
                (index, self._period(epoch), row[inside].cpu())
                for (epoch, index), row, inside in zip(rows, values, answer, strict=True)
            ]
            for index, epoch, row in gather_object(new):
                self.values[index], self.epochs[index] = row, epoch
            return values
        values = torch.zeros(answer.shape, dtype=torch.float32, device=answer.device)
        for row, inside, (_, index) in zip(values, answer, rows, strict=True):
            row[inside] = self.values[index].to(answer.device)
        return values

    def _period(self, epoch: int) -> int:
        return epoch - epoch % self.refresh_epochs

    def save(self, folder: Path) -> None:
        """Write the cached values into a checkpoint, if any."""
        if self.values:
            named: dict[str, Any] = {
                f"{index}.{self.epochs[index]}": value for index, value in self.values.items()
            }
            save_file(named, folder / _FILE)

    def load(self, folder: Path) -> None:
        """Restore the values of a checkpoint, if any."""
        if (folder / _FILE).exists():
            for name, value in load_file(folder / _FILE).items():
                index, epoch = map(int, name.split("."))
                self.values[index], self.epochs[index] = value, epoch
