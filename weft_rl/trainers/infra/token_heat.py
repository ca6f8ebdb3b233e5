"""How sure a model is along a few responses, token by token: for a report's picture."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from weft_rl.diffusion.rates import mean_rate
from weft_rl.runs.atomic_io import write_json

# Enough to see a pattern, and short enough to read.
SHOWN, _LONGEST = 3, 400


def write_heat(
    path: Path,
    x0: Tensor,
    answer: Tensor,
    entropy: Tensor,
    beta: Tensor,
    spelling: Callable[[int], str],
) -> None:
    """Write each row's answer tokens with entropy (nats), rate and rate over its mean as JSON.

    x0 (B, L) long; answer (B, L) bool; entropy, beta (B, L). Long answers are cut for the picture,
    their mean rate is the whole one's."""
    ratio = beta / mean_rate(beta, answer)
    examples = []
    for row in range(len(x0)):
        inside = answer[row].nonzero()[:_LONGEST, 0]
        examples.append(
            {"tokens": [spelling(token) for token in x0[row, inside].tolist()]}
            | {
                name: [round(value, 4) for value in values[row, inside].tolist()]
                for name, values in (("entropy", entropy), ("beta", beta), ("ratio", ratio))
            }
        )
    write_json(path, {"examples": examples})
