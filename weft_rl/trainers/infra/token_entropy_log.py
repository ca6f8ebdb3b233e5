"""How sure a model is of each token, on average over training: the data of the paper's Figure 2."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft_rl.runs.atomic_io import write_text

_FILE = "token_entropy_{rank}.safetensors"
# The paper draws the 100 most frequent; ten times as many leave room to choose.
_LISTED = 1000


class TokenTable:
    """Count and summed entropy of each token of a vocabulary, as it stood in answers."""

    def __init__(self, vocab_size: int) -> None:
        self.count = torch.zeros(vocab_size, dtype=torch.int64)
        self.total = torch.zeros(vocab_size, dtype=torch.float64)

    def add(self, x0: Tensor, answer: Tensor, entropy: Tensor) -> None:
        """Count a batch's answer tokens: x0 (B, L) long, answer (B, L) bool, entropy (B, L)."""
        tokens = x0[answer].cpu()
        self.count.index_add_(0, tokens, torch.ones_like(tokens))
        self.total.index_add_(0, tokens, entropy[answer].double().cpu())

    def of_all(self, accelerator: Accelerator) -> "TokenTable":
        """The sums over all processes, each of which must ask for them."""
        whole = TokenTable(len(self.count))
        for name in ("count", "total"):
            own = getattr(self, name).to(accelerator.device)
            setattr(whole, name, accelerator.reduce(own, reduction="sum").cpu())
        return whole

    def rows(self) -> list[tuple[int, int, float]]:
        """Token, count and mean entropy in nats of the frequent tokens, most frequent first."""
        order = self.count.argsort(descending=True, stable=True)[:_LISTED]
        order = order[self.count[order] > 0]
        mean = self.total[order] / self.count[order]
        return [*zip(order.tolist(), self.count[order].tolist(), mean.tolist(), strict=True)]

    def write(self, path: Path, spelling: Callable[[int], str]) -> None:
        """Write the rows as CSV: id, token, count, mean_entropy."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("id", "token", "count", "mean_entropy"))
        for token, count, mean in self.rows():
            writer.writerow((token, spelling(token), count, f"{mean:.6f}"))
        write_text(path, text.getvalue())

    def save(self, folder: Path, rank: int) -> None:
        """Keep the sums in a checkpoint's folder."""
        save_file({"count": self.count, "total": self.total}, folder / _FILE.format(rank=rank))

    def load(self, folder: Path, rank: int) -> None:
        """Take up this rank's sums; a checkpoint of fewer ranks has none for the new ones."""
        path = folder / _FILE.format(rank=rank)
        if path.exists():
            kept = load_file(path)
            self.count, self.total = kept["count"], kept["total"]
