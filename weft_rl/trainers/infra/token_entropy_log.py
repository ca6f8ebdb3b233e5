"""Token entropies: the data of WeFT's Figure 2 and of a heat map."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft_rl.diffusion.rates import mean_rate
from weft_rl.io.terminal import visible
from weft_rl.runs.atomic_io import write_json, write_text

_FILE = "token_entropy_{rank}.safetensors"
# The paper plots the 100 most frequent; ten times as many leave a choice.
_MAX_TOKENS = 1000
# Heat map: number of responses, and tokens of each.
HEATMAP_EXAMPLES, _HEATMAP_TOKENS = 3, 400


class TokenTable:
    """Count and summed entropy of each vocabulary token in answers."""

    def __init__(self, vocab_size: int) -> None:
        self.count = torch.zeros(vocab_size, dtype=torch.int64)
        self.total = torch.zeros(vocab_size, dtype=torch.float64)

    def add(self, x0: Tensor, answer: Tensor, entropy: Tensor) -> None:
        """Add a batch: x0 (B, L) long, answer (B, L) bool, entropy (B, L)."""
        tokens = x0[answer].cpu()
        self.count.index_add_(0, tokens, torch.ones_like(tokens))
        self.total.index_add_(0, tokens, entropy[answer].double().cpu())

    def reduced(self, accelerator: Accelerator) -> "TokenTable":
        """Sums over all processes; collective."""
        table = TokenTable(len(self.count))
        for name in ("count", "total"):
            sums = getattr(self, name).to(accelerator.device)
            setattr(table, name, accelerator.reduce(sums, reduction="sum").cpu())
        return table

    def rows(self) -> list[tuple[int, int, float]]:
        """Token, count and mean entropy in nats, most frequent first."""
        order = self.count.argsort(descending=True, stable=True)[:_MAX_TOKENS]
        order = order[self.count[order] > 0]
        mean = self.total[order] / self.count[order]
        return [*zip(order.tolist(), self.count[order].tolist(), mean.tolist(), strict=True)]

    def write(self, path: Path, spelling: Callable[[int], str]) -> None:
        """Write the rows as CSV, a line each: id, token, count, mean_entropy."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("id", "token", "count", "mean_entropy"))
        for token, count, mean in self.rows():
            writer.writerow((token, visible(spelling(token)), count, f"{mean:.6f}"))
        write_text(path, text.getvalue())

    def save(self, folder: Path, rank: int) -> None:
        """Write this process' sums into a checkpoint."""
        save_file({"count": self.count, "total": self.total}, folder / _FILE.format(rank=rank))

    def load(self, folder: Path, rank: int) -> None:
        """Restore this process' sums, if the checkpoint has them."""
        path = folder / _FILE.format(rank=rank)
        if path.exists():
            sums = load_file(path)
            self.count, self.total = sums["count"], sums["total"]


def write_heatmap(
    path: Path,
    x0: Tensor,
    answer: Tensor,
    entropy: Tensor,
    beta: Tensor,
    spelling: Callable[[int], str],
) -> None:
    """Write entropy (nats), rate and relative rate of each row's answer tokens as JSON.

    x0: (B, L) long. answer: (B, L) bool. entropy, beta: (B, L). Long answers are truncated; the
    mean rate is over the full answer."""
    ratio = beta / mean_rate(beta, answer)
    examples = []
    for row in range(len(x0)):
        inside = answer[row].nonzero()[:_HEATMAP_TOKENS, 0]
        examples.append(
            {"tokens": [spelling(token) for token in x0[row, inside].tolist()]}
            | {
                name: [round(value, 4) for value in values[row, inside].tolist()]
                for name, values in (("entropy", entropy), ("beta", beta), ("ratio", ratio))
            }
        )
    write_json(path, {"examples": examples})
