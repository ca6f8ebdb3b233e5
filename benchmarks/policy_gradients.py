"""How far each estimator and objective is from the gradient of the expected reward.

Usage: python benchmarks/policy_gradients.py [quick]. With three tokens in the vocabulary and three
in a completion everything can be enumerated: the probability of a completion under the sampler (one
token a step in random order), the expected reward, and its gradient. Against it stand the gradients
that each pair gives from groups of eight completions, on the policy that sampled them:

  cosine      of their mean with the true gradient: 1 points the right way
  bias        what is left of their mean beside the true direction, over its length
  noise       their standard deviation over the length of their mean: how many groups a step needs
  views       forwards per completion

Mean over random models. Writes benchmarks/results/policy_gradients.json and .md."""

import json
import sys
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import torch
from machine import machine
from torch import Tensor

from weft_rl.config.rl import LossConfig
from weft_rl.diffusion import estimators
from weft_rl.diffusion.advantages import group_advantages, wd1_weights
from weft_rl.diffusion.estimators import Views
from weft_rl.diffusion.surrogates import aggregate
from weft_rl.trainers.policy_loss import Evidence, normalizer_of, token_loss

RESULTS = Path(__file__).parent / "results"
V, T, G = 3, 3, 8
MASK = V
CANVASES = torch.tensor([*product(range(V + 1), repeat=T)])  # (64, T)
COMPLETIONS = torch.tensor([*product(range(V), repeat=T)])  # (27, T)
PLACES = (V + 1) ** torch.arange(T - 1, -1, -1)  # a canvas' index is its number in base V + 1
PAIRS = [
    *(("one_step", "bnpo"), ("coupled", "bnpo"), ("random_mask", "bnpo"), ("trace", "bnpo")),
    *(("one_step", "gspo"), ("trace", "gspo"), ("elbo", "gspo"), ("elbo, complement", "gspo")),
    *(("elbo, quadrature", "gspo"), ("one_step", "wd1"), ("elbo", "wd1"), ("elbo", "spg")),
]


def reward(x: Tensor) -> Tensor:
    """Half for the first and last token alike, half for the middle one being the next: (...)."""
    return 0.5 * (x[..., 0] == x[..., 2]) + 0.5 * (x[..., 1] == (x[..., 0] + 1) % V)


class PairModel:
    """log p of each token at each place from a bias and what each other place shows."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = T * V + T * T * (V + 1) * V
        # about as sure of itself as a model in training: entropies of 0.5 to 1 of at most 1.1 nats
        self.parameters = 0.7 * torch.randn(count, generator=generator, dtype=torch.float64)

    @staticmethod
    def table(parameters: Tensor) -> Tensor:
        """log p for every canvas: (64, T, V)."""
        bias = parameters[: T * V].view(T, V)
        pair = parameters[T * V :].view(T, T, V + 1, V) * (1 - torch.eye(T))[:, :, None, None]
        shown = torch.nn.functional.one_hot(CANVASES, V + 1).double()  # (64, T, V + 1)
        return (bias + torch.einsum("cjs,ijsv->civ", shown, pair)).log_softmax(-1)


def sequence_probability(table: Tensor, x: Tensor) -> Tensor:
    """Probability of each completion under the sampler, a mean over orders: (27,)."""
    total = torch.zeros(len(x), dtype=torch.float64)
    orders = [*permutations(range(T))]
    for order in orders:
        canvas, log_p = torch.full_like(x, MASK), torch.zeros(len(x), dtype=torch.float64)
        for place in order:
            index = (canvas * PLACES).sum(-1)
            log_p = log_p + table[index, place, x[:, place]]
            canvas = canvas.clone()
            canvas[:, place] = x[:, place]
        total = total + log_p.exp() / len(orders)
    return total


def sample(table: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Completions of the sampler and the step of each token: two (count, T)."""
    order = torch.rand(count, T, generator=generator).argsort(-1)
    x = torch.full((count, T), MASK)
    rows = torch.arange(count)
    for step in range(T):
        place = order[:, step]
        p = table[(x * PLACES).sum(-1), place].exp()
        x[rows, place] = torch.multinomial(p, 1, generator=generator)[:, 0]
    return x, order.argsort(-1)


def views_of(estimator: str, order: Tensor, generator: torch.Generator) -> Views:
    """The estimator's views of as many completions as there are orders."""
    answer, draws = torch.ones_like(order, dtype=torch.bool), [generator] * len(order)
    name, _, variant = estimator.partition(", ")
    if name == "one_step":
        return estimators.one_step(answer)
    if name == "trace":
        return estimators.trace(answer, order, T, T)
    if name == "coupled":
        return estimators.coupled(answer, draws)
    if name == "random_mask":
        return estimators.random_mask(answer, draws, 2)
    times = "quadrature" if variant == "quadrature" else "random"
    return estimators.elbo(answer, draws, 2, times=times, complement=variant == "complement")


def gradients(
    table: Tensor, jacobian: Tensor, estimator: str, objective: str, groups: int, seed: int
) -> tuple[Tensor, int]:
    """The pair's gradient of the reward from each group, (groups, parameters), and its views."""
    generator = torch.Generator().manual_seed(seed)
    x, order = sample(table, groups * G, generator)
    views = views_of(estimator, order, generator)
    canvas = torch.where(views.masked, MASK, x[:, None])
    index = (canvas * PLACES).sum(-1)  # (N, D)
    places = torch.arange(T)
    log_p = table[index[..., None], places, x[:, None]].detach().requires_grad_()
    a = group_advantages(reward(x), G)
    if objective == "wd1":
        a = wd1_weights(a, G)
    views = replace(views, weight=views.weight.double())
    found = token_loss(objective, log_p, views, Evidence(a), LossConfig(), 0.0)
    sizes = {"rows": G, "gen_length": T, "group": G}
    parts = zip(found.loss.split(G), found.scored.split(G), strict=True)
    losses = [
        aggregate(loss, scored, normalizer_of(objective), tokens=scored.sum(), **sizes)
        for loss, scored in parts
    ]
    (by_token,) = torch.autograd.grad(torch.stack(losses).sum(), log_p)
    rows = jacobian[index[..., None], places, x[:, None]]  # (N, D, T, parameters)
    each = -(by_token[..., None] * rows).sum((1, 2))
    return each.view(groups, G, -1).sum(1), views.masked.shape[1]


def compare(seed: int, groups: int) -> dict[tuple[str, str], dict[str, float]]:
    """Each pair against the truth on one random model."""
    parameters = PairModel(seed).parameters.requires_grad_()
    table = PairModel.table(parameters)
    expected = (sequence_probability(table, COMPLETIONS) * reward(COMPLETIONS)).sum()
    (truth,) = torch.autograd.grad(expected, parameters, retain_graph=True)
    jacobian = torch.autograd.functional.jacobian(PairModel.table, parameters.detach())
    direction = truth / truth.norm()
    rows = {}
    for estimator, objective in PAIRS:
        parts = [  # in parts: a group's Jacobian rows are large
            gradients(table.detach(), jacobian, estimator, objective, 500, seed * 10**6 + part)
            for part in range(groups // 500)
        ]
        every = torch.cat([part[0] for part in parts])
        mean, deviation = every.mean(0), every.std(0).norm()
        along = mean @ direction
        rows[estimator, objective] = {
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
        pair: {key: sum(rows[pair][key] for rows in each) / len(each) for key in each[0][pair]}
        for pair in PAIRS
    }
    lines = [
        "| estimator | objective | cosine | bias | noise | views |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {estimator} | {objective} | {row['cosine']:.3f} | {row['bias']:.3f} ± "
        f"{row['bias_error']:.3f} | {row['noise']:.1f} | {row['views']:.0f} |"
        for (estimator, objective), row in mean.items()
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if quick:
        return
    setting = {"vocabulary": V, "length": T, "G": G, "models": len(each), "groups": groups}
    rows = [{"estimator": e, "objective": o, **row} for (e, o), row in mean.items()]
    RESULTS.mkdir(exist_ok=True)
    result = machine() | {"setting": setting, "rows": rows}
    (RESULTS / "policy_gradients.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "policy_gradients.md").write_text(text)


if __name__ == "__main__":
    main(quick=sys.argv[1:] == ["quick"])
