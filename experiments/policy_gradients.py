"""Bias of each estimator and loss relative to the gradient of the expected reward.

Usage: python -m experiments.policy_gradients [quick]. With three tokens and completions of length
three, completion probabilities under the sampler, expected reward and gradient are enumerated.
Estimated gradients come from groups of eight completions of the current policy:

  cosine      between their mean and the true gradient
  bias        component of their mean orthogonal to the true gradient, over the mean's norm
  noise       their standard deviation for one group, over the mean's norm
  views       forward passes per completion

Mean over random models."""

import sys
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from benchmarks.machine import save
from weft_rl.config.rl import LossConfig
from weft_rl.diffusion import logprob_estimators as estimators
from weft_rl.diffusion.advantages import group_advantages, wd1_weights
from weft_rl.diffusion.logprob_estimators import MaskedViews
from weft_rl.diffusion.policy_losses import aggregate
from weft_rl.diffusion.rl_methods import RL_LOSSES
from weft_rl.trainers.rl_objectives import LossInputs, token_loss

V, T, G = 3, 3, 8
MASK = V
CANVASES = torch.tensor([*product(range(V + 1), repeat=T)])  # (64, T)
PLACES = (V + 1) ** torch.arange(T - 1, -1, -1)  # canvas index in base V + 1
PAIRS = [
    *(("one_step", "bnpo"), ("coupled", "bnpo"), ("random_mask", "bnpo"), ("trace", "bnpo")),
    *(("one_step", "gspo"), ("trace", "gspo"), ("elbo", "gspo"), ("elbo, complement", "gspo")),
    *(("elbo, quadrature", "gspo"), ("one_step", "wd1"), ("elbo", "wd1"), ("elbo", "spg")),
]
# Confidence remasking, the default: d1's, multi-view and trace estimators.
CONFIDENT = [("one_step", "bnpo"), ("coupled", "bnpo"), ("random_mask", "bnpo")]
CONFIDENT += [("trace", "bnpo"), ("trace", "gspo"), ("elbo", "gspo")]
CASES = [("random", *pair) for pair in PAIRS] + [("low_confidence", *pair) for pair in CONFIDENT]


def reward(x: Tensor) -> Tensor:
    """0.5 for equal first and last tokens, 0.5 for the middle one being their successor: (...)."""
    return 0.5 * (x[..., 0] == x[..., 2]) + 0.5 * (x[..., 1] == (x[..., 0] + 1) % V)


class PairModel:
    """log p of each token at each position from a bias and the other positions' tokens."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = T * V + T * T * (V + 1) * V
        # about as confident as a model in training: entropies of 0.5 to 1 of at most 1.1 nats
        self.parameters = 0.7 * torch.randn(count, generator=generator, dtype=torch.float64)

    @staticmethod
    def table(parameters: Tensor) -> Tensor:
        """log p for every canvas: (64, T, V)."""
        bias = parameters[: T * V].view(T, V)
        pair = parameters[T * V :].view(T, T, V + 1, V) * (1 - torch.eye(T))[:, :, None, None]
        shown = torch.nn.functional.one_hot(CANVASES, V + 1).double()  # (64, T, V + 1)
        return (bias + torch.einsum("cjs,ijsv->civ", shown, pair)).log_softmax(-1)


def transitions(table: Tensor, remasking: str) -> Tensor:
    """Probability that a step commits a token at a position, per canvas: (64, T, V)."""
    p, open_ = table.exp(), (CANVASES == MASK)[..., None]  # (64, T, 1)
    if remasking == "random":
        return torch.where(open_, p / open_.sum(1, keepdim=True).clamp(min=1), 0.0)
    # a candidate is committed if all other open positions' candidates are less probable
    less = p[:, None, None] < p[..., None, None]  # (64, T, V, T, V): the other is less probable
    beaten = (p[:, None, None] * less).sum(-1)  # (64, T, V, T)
    others = open_[:, None, None, :, 0] & ~torch.eye(T, dtype=torch.bool)[:, None]
    return torch.where(open_, p * torch.where(others, beaten, 1.0).prod(-1), 0.0)


def sequence_probability(steps: Tensor) -> Tensor:
    """Probability of reaching each canvas: (64,)."""
    reached = (CANVASES == MASK).all(1).double()
    total = reached
    for _ in range(T):
        following = torch.zeros_like(reached)
        for place, token in product(range(T), range(V)):
            filled = torch.arange(len(CANVASES)) + (token - CANVASES[:, place]) * PLACES[place]
            following = following.index_add(0, filled, reached * steps[:, place, token])
        reached = following
        total = total + reached
    return total


def sample(steps: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Completions of the sampler and the step of each token: two (count, T)."""
    x, order = torch.full((count, T), MASK), torch.full((count, T), T)
    rows = torch.arange(count)
    for step in range(T):
        p = steps[(x * PLACES).sum(-1)].flatten(1)
        chosen = torch.multinomial(p, 1, generator=generator)[:, 0]
        x[rows, chosen // V], order[rows, chosen // V] = chosen % V, step
    return x, order


def views_of(estimator: str, order: Tensor, generator: torch.Generator) -> MaskedViews:
    """The estimator's views, one completion per order."""
    answer, draws = torch.ones_like(order, dtype=torch.bool), [generator] * len(order)
    name, _, variant = estimator.partition(", ")
    if name == "one_step":
        return estimators.one_step(answer)
    if name == "trace":
        return estimators.trace(answer, order, T)
    if name == "coupled":
        return estimators.coupled(answer, draws)
    if name == "random_mask":
        return estimators.random_mask(answer, draws, 2)
    times = "quadrature" if variant == "quadrature" else "random"
    return estimators.elbo(answer, draws, 2, times=times, complement=variant == "complement")


def gradients(
    table: Tensor, jacobian: Tensor, case: tuple[str, str, str], groups: int, seed: int
) -> tuple[Tensor, int]:
    """Gradient of the reward per group (groups, parameters), and number of views."""
    remasking, estimator, objective = case
    generator = torch.Generator().manual_seed(seed)
    x, order = sample(transitions(table, remasking), groups * G, generator)
    views = views_of(estimator, order, generator)
    canvas = torch.where(views.masked, MASK, x[:, None])
    index = (canvas * PLACES).sum(-1)  # (N, D)
    places = torch.arange(T)
    log_p = table[index[..., None], places, x[:, None]].detach().requires_grad_()
    a = group_advantages(reward(x), G)
    if objective == "wd1":
        a = wd1_weights(a, G)
    views = replace(views, weight=views.weight.double())
    found = token_loss(objective, log_p, views, LossInputs(a), LossConfig(), 0.0)
    sizes = {"rows": G, "gen_length": T, "group": G}
    parts = zip(found.loss.split(G), found.loss_mask.split(G), strict=True)
    losses = [
        aggregate(loss, scored, RL_LOSSES[objective].normalizer, tokens=scored.sum(), **sizes)
        for loss, scored in parts
    ]
    (by_token,) = torch.autograd.grad(torch.stack(losses).sum(), log_p)
    rows = jacobian[index[..., None], places, x[:, None]]  # (N, D, T, parameters)
    each = -(by_token[..., None] * rows).sum((1, 2))
    return each.view(groups, G, -1).sum(1), views.masked.shape[1]


def truth(parameters: Tensor, remasking: str) -> Tensor:
    """Gradient of the expected reward under the sampler."""
    steps = transitions(PairModel.table(parameters.requires_grad_()), remasking)
    whole = (CANVASES != MASK).all(1)
    expected = (sequence_probability(steps) * whole * reward(CANVASES)).sum()
    return torch.autograd.grad(expected, parameters)[0]


def compare(seed: int, groups: int) -> dict[tuple[str, str, str], dict[str, float]]:
    """Compare all cases with the true gradient on one random model."""
    parameters = PairModel(seed).parameters
    table = PairModel.table(parameters)
    jacobian = torch.autograd.functional.jacobian(PairModel.table, parameters)
    rows = {}
    for case in CASES:
        wanted = truth(parameters.clone(), case[0])
        direction = wanted / wanted.norm()
        parts = [  # in chunks: a group's Jacobian rows are large
            gradients(table, jacobian, case, 500, seed * 10**6 + part)
            for part in range(groups // 500)
        ]
        every = torch.cat([part[0] for part in parts])
        mean, deviation = every.mean(0), every.std(0).norm()
        along = mean @ direction
        rows[case] = {
            "cosine": float(along / mean.norm()),
            "bias": float((mean - along * direction).norm() / mean.norm()),
            "bias_error": float(deviation / mean.norm() / len(every) ** 0.5),
            "noise": float(deviation / mean.norm()),
            "views": parts[0][1],
        }
    return rows


def main(*, quick: bool) -> None:
    """Measure and write the results."""
    seeds, groups = (range(1), 500) if quick else (range(4), 10000)
    each = [compare(seed, groups) for seed in seeds]
    mean = {
        case: {key: sum(rows[case][key] for rows in each) / len(each) for key in each[0][case]}
        for case in CASES
    }
    setting = {"vocabulary": V, "length": T, "G": G, "models": len(each), "groups": groups}
    names = ("remasking", "estimator", "loss_type")
    rows = [dict(zip(names, case, strict=True)) | row for case, row in mean.items()]
    save("policy_gradients", {"setting": setting, "rows": rows}, quick=quick)


if __name__ == "__main__":
    main(quick=sys.argv[1:] == ["quick"])
