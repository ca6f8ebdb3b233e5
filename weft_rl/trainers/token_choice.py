"""Which tokens of a rollout are trained on or held back, by thresholds over all processes."""

import torch
from accelerate import Accelerator
from torch import Tensor

from weft_rl.config.rl import LossConfig
from weft_rl.diffusion.token_selection import covariances, top_threshold


def choose_tokens(
    accelerator: Accelerator,
    log_p: Tensor,
    entropy: Tensor,
    scored: Tensor,
    advantages: Tensor,
    options: LossConfig,
) -> dict[str, Tensor]:
    """`chosen` (N, mu, C) bool, the top share by entropy, and `held`, the top share by covariance.

    log_p, entropy, scored (N, mu, C) of the sampling policy: the choice is the same for every split
    of the rollout into micro-batches and processes. Sources: the 80/20 paper; KL-Cov."""
    made: dict[str, list[Tensor]] = {}
    for k in range(log_p.shape[1]):
        seen, own = scored[:, k], log_p[:, k]
        if options.top_entropy_share < 1:
            every = _gathered(accelerator, entropy[:, k][seen])
            least = top_threshold(every, options.top_entropy_share)
            made.setdefault("chosen", []).append(seen & (entropy[:, k] >= least))
        if options.kl_cov_share > 0:
            values = _gathered(accelerator, own[seen])
            spread = advantages[:, None].expand_as(own)
            mean_a = float(_gathered(accelerator, spread[seen]).mean())
            together = covariances(own, advantages, float(values.mean()), mean_a)
            every = _gathered(accelerator, together[seen])
            least = top_threshold(every, options.kl_cov_share)
            made.setdefault("held", []).append(seen & (together >= least))
    return {name: torch.stack(each, dim=1) for name, each in made.items()}


def _gathered(accelerator: Accelerator, values: Tensor) -> Tensor:
    """The values (M,) of all processes, whose number differs, one after another."""
    count = accelerator.gather(torch.tensor([len(values)], device=values.device))
    padded = accelerator.pad_across_processes(values, dim=0)
    every = accelerator.gather(padded).view(len(count), -1)
    return torch.cat([row[:n] for row, n in zip(every, count.tolist(), strict=True)])
