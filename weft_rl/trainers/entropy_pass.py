"""What a model expects of a wholly masked answer: one forward without gradient, fresh or kept.

B batch, L sequence, K longest answer of the batch, V vocabulary."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# Estimates of an answer's tokens from logits (B, K, V), x0 (B, K) and answer (B, K): (B, K). It is
# given a few of the K at a time.
Reduce = Callable[[Tensor, Tensor, Tensor], Tensor]
_FILE = "estimates.safetensors"


def answer_positions(answer: Tensor) -> Tensor:
    """Where each row's answer tokens are, in order: (B, L) bool -> (B, K) long.

    Rows with a shorter answer are filled up with positions outside of it."""
    longest = int(answer.sum(-1).max())
    # a stable sort of "not in the answer" puts the answer's positions first, in order
    return (~answer).long().argsort(dim=-1, stable=True)[:, :longest]


@torch.no_grad()
def estimate(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    mask_id: int,
    reduce: Reduce,
    *,
    train_mode: bool = False,
    bf16: bool = False,
) -> Tensor:
    """`reduce` of one forward with the whole answer masked: (B, L) float32, 0 outside the answer.

    batch: x0, attention_mask (B, L) long, answer (B, L) bool. The head is computed on the answer's
    rows only. train_mode: whether dropout is on; bf16: whether products are taken in bfloat16.
    The model's mode is left as it was."""
    x0, answer = batch["x0"], batch["answer"]
    where, training = answer_positions(answer), model.training
    model.train(train_mode)
    ids, there = x0.gather(1, where), answer.gather(1, where)

    def of_part(logits: Tensor, begin: int) -> Tensor:
        part = slice(begin, begin + logits.shape[1])
        return reduce(logits, ids[:, part], there[:, part])

    precision = torch.autocast(x0.device.type, torch.bfloat16) if bf16 else nullcontext()
    try:
        with precision:
            found = model(
                input_ids=x0.masked_fill(answer, mask_id),
                attention_mask=batch["attention_mask"],
                logits_to_keep=where,
                logits_fn=of_part,
            ).logits.float()
    finally:
        model.train(training)
    spread = torch.zeros(x0.shape, dtype=torch.float32, device=x0.device)
    return spread.scatter(1, where, torch.where(there, found, 0.0))


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the processor has bfloat16 products of its own; without, they are slower than wide
    ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch 2.11 does not tell of a CPU's
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class EntropyCache:
    """Estimates of each example's answer, kept for some epochs and with the checkpoint.

    Every process keeps what any of them has estimated, and all estimate when one has to: an example
    comes to another process in the next epoch, and a forward of sharded weights takes them all.
    refresh_every: epochs between estimates of an example; 1 keeps none."""

    def __init__(self, refresh_every: int) -> None:
        self.refresh_every = refresh_every
        self.kept: dict[int, Tensor] = {}  # example -> (its answer's length,) float32
        self.since: dict[int, int] = {}  # example -> the epoch of its estimate

    def get(self, keys: Tensor, answer: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
        """Estimates (B, L) of a batch: the kept ones, or where one of them is due, new ones of all.

        keys (B, 2): epoch and example of each row; answer (B, L) bool; fresh: makes (B, L)."""
        if self.refresh_every == 1:
            return fresh()
        rows = keys.tolist()
        due = not all(self._holds(epoch, index) for epoch, index in rows)
        if any(gather_object([due])):
            values = fresh()
            own = [
                (index, self._due(epoch), row[inside].cpu())
                for (epoch, index), row, inside in zip(rows, values, answer, strict=True)
            ]
            for index, since, row in gather_object(own):
                self.kept[index], self.since[index] = row, since
            return values
        values = torch.zeros(answer.shape, dtype=torch.float32, device=answer.device)
        for row, inside, (_, index) in zip(values, answer, rows, strict=True):
            row[inside] = self.kept[index].to(answer.device)
        return values

    def _due(self, epoch: int) -> int:
        """The newest epoch up to this one in which everything is estimated anew."""
        return epoch - epoch % self.refresh_every

    def _holds(self, epoch: int, index: int) -> bool:
        return self.since.get(index, -1) == self._due(epoch)

    def save(self, folder: Path) -> None:
        """Write the kept estimates into a checkpoint's folder; nothing when there are none."""
        if self.kept:
            named: dict[str, Any] = {
                f"{index}.{self.since[index]}": value for index, value in self.kept.items()
            }
            save_file(named, folder / _FILE)

    def load(self, folder: Path) -> None:
        """Take up what a checkpoint has kept, if anything."""
        if (folder / _FILE).exists():
            for name, value in load_file(folder / _FILE).items():
                index, since = map(int, name.split("."))
                self.kept[index], self.since[index] = value, since
