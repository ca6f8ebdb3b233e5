"""Bias and variance of the cold-start losses against an exact -log p.

Usage: python -m experiments.objective_evidence. Models are conditionals of random joint
distributions over L tokens with V values. Expectations and variances are over all masks and by
quadrature over t. Takes a minute on two cores."""

import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.machine import save
from weft_rl.data.sft_examples import encode_traces
from weft_rl.data.toy import cold_start_traces
from weft_rl.diffusion.exact_elbo import elbo_weights, survival_mask_probability
from weft_rl.diffusion.noise import TIME_MARGIN
from weft_rl.diffusion.rates import mean_rate, token_rates, usable_rates
from weft_rl.models.loading import load_model
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.trainers.cold_start import ColdStartTrainer
from weft_rl.trainers.cold_start_config import ColdStartConfig

LENGTH, VOCAB, MODELS, NODES = 5, 3, 100, 120
DRAWS, BATCH = 4000, 16  # for the comparison of time sampling
UNEVEN = [0.05, 0.1, 0.5, 1.0, 2.0]
CASES = [
    ("SFT", "equal", "plain", "none"),
    ("SFT, loss_norm=masked, times L", "equal", "plain", "masked"),
    ("WeFT, exact_elbo=false (Algorithm 1)", "weft", "plain", "none"),
    ("WeFT, dt_i/dt weight at one uniform t", "weft", "slope", "none"),
    ("WeFT, exact_elbo=true", "weft", "clock", "none"),
    ("uneven rates, exact_elbo=false", "uneven", "plain", "none"),
    ("uneven rates, dt_i/dt weight at one uniform t", "uneven", "slope", "none"),
    ("uneven rates, exact_elbo=true", "uneven", "clock", "none"),
]


def model(seed: int) -> tuple[Tensor, Tensor, float]:
    """Logits per masked set (2^L, L, V), a likely sequence (L,), its -log p in nats."""
    generator = torch.Generator().manual_seed(seed)
    # sharp enough for near-certain and dependent tokens
    joint = (6 * torch.rand((VOCAB,) * LENGTH, generator=generator, dtype=torch.float64)).exp()
    joint *= torch.logspace(0, -3, VOCAB, dtype=torch.float64)[:, None, None, None, None]
    joint /= joint.sum()
    place = int(torch.multinomial(joint.flatten(), 1, generator=generator))
    x0 = torch.tensor([place // VOCAB**k % VOCAB for k in reversed(range(LENGTH))])
    table = torch.zeros(2**LENGTH, LENGTH, VOCAB, dtype=torch.float64)
    for row, masked in zip(table, product([False, True], repeat=LENGTH), strict=True):
        given = joint[tuple(slice(None) if m else int(x) for m, x in zip(masked, x0, strict=True))]
        places = [i for i, m in enumerate(masked) if m]
        for axis, i in enumerate(places):
            others = tuple(a for a in range(len(places)) if a != axis)
            row[i] = (given.sum(others) if others else given).log()
    return table, x0, float(-joint[tuple(x0)].log())


def rates(table: Tensor, x0: Tensor) -> Tensor:
    """WeFT's rates (1, L) from the fully masked prediction."""
    answer = torch.ones(1, LENGTH, dtype=torch.bool)
    return usable_rates(token_rates("sqrt_entropy", table[-1:], x0[None], answer), answer)


def times() -> tuple[Tensor, Tensor]:
    """Times (N, 1) and weights (N,) of a uniform t: Gauss-Legendre in its logit."""
    k = torch.arange(1, NODES, dtype=torch.float64)
    off = k / torch.sqrt(4 * k * k - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    edge = torch.logit(torch.tensor(1 - TIME_MARGIN, dtype=torch.float64))
    t = torch.sigmoid(edge * nodes)
    weights = 2 * vectors[0] ** 2 * edge * t * (1 - t) / (1 - 2 * TIME_MARGIN)
    return t[:, None], weights


def drawn(
    table: Tensor, x0: Tensor, beta: Tensor, clock: Tensor, method: str, normalizer: str
) -> tuple[Tensor, Tensor]:
    """All masks at each clock (N, 1): probability (N, 2^L) and loss terms (N, 2^L, L)."""
    masks = torch.tensor([*product([False, True], repeat=LENGTH)])  # (2^L, L)
    answer = torch.ones(len(clock), LENGTH, dtype=torch.bool)
    beta = beta.expand(len(clock), -1)
    beta_ref = mean_rate(beta, answer)
    probability = survival_mask_probability(clock, beta, beta_ref)[:, None]  # (N, 1, L)
    weight = torch.ones_like(probability)
    if method == "slope":
        ratio = beta / beta_ref
        # dt_i/dt = r (1 - t)^(r - 1), at t = 1 - exp(-clock)
        weight = (ratio * torch.exp((1 - ratio) * clock))[:, None]
    elif method == "clock":
        weight = elbo_weights(clock, beta, beta_ref, answer)[:, None]
    chance = torch.where(masks, probability, 1 - probability).prod(-1)
    nll = -table.log_softmax(-1).gather(-1, x0.expand(len(masks), -1)[..., None])[..., 0]
    terms = torch.where(masks, weight * nll / probability, 0.0)
    if normalizer == "masked":
        terms = terms * LENGTH / masks.sum(-1).clamp(min=1)[:, None]
    return chance, terms


def moments(
    table: Tensor, x0: Tensor, beta: Tensor, method: str, normalizer: str
) -> tuple[Tensor, float]:
    """Expectation of each token's term (L,) and variance of one draw of the loss."""
    t, weights = times()
    ratio = beta[0] / beta.mean()
    # with one token's clock, each token in turn has t as its t_i
    turns = ratio if method == "clock" else torch.ones(1, dtype=torch.float64)
    first, second = torch.zeros(LENGTH, dtype=torch.float64), 0.0
    for turn in turns:
        clock = -torch.log1p(-t) / turn
        chance, terms = drawn(table, x0, beta, clock, method, normalizer)
        share = weights[:, None] * chance / len(turns)
        first = first + (share[..., None] * terms).sum((0, 1))
        second += float((share * terms.sum(-1) ** 2).sum())
    return first, second - float(first.sum()) ** 2


def estimators() -> list[dict]:
    """Each estimator's expectation and spread relative to -log p, over the models."""
    rows = []
    for name, kind, method, normalizer in CASES:
        mean, spread, ratios = [], [], []
        for seed in range(MODELS):
            table, x0, nll = model(seed)
            beta = {
                "equal": torch.ones(1, LENGTH).double(),
                "weft": rates(table, x0),
                "uneven": torch.tensor([UNEVEN], dtype=torch.float64),
            }[kind]
            first, variance = moments(table, x0, beta, method, normalizer)
            exact, _ = moments(table, x0, beta, "clock", "none")
            mean.append(float(first.sum()) / nll)
            spread.append(variance**0.5 / nll)
            ratios += (first / exact).tolist()
        rows.append(
            {
                "estimator": name,
                "mean": fmean(mean),
                "lowest": min(mean),
                "highest": max(mean),
                "token_lowest": min(ratios),
                "token_highest": max(ratios),
                "spread": fmean(spread),
            }
        )
    return rows


def share_of_times() -> float:
    """Share of the variance of WeFT's loss due to t: what stratified times can remove."""
    shares = []
    for seed in range(MODELS):
        table, x0, _ = model(seed)
        beta = rates(table, x0)
        t, weights = times()
        chance, terms = drawn(table, x0, beta, -torch.log1p(-t), "plain", "none")
        at_t = (chance[..., None] * terms).sum((1, 2))  # (N,)
        mean = (weights * at_t).sum()
        _, whole = moments(table, x0, beta, "plain", "none")
        shares.append(float((weights * at_t**2).sum() - mean**2) / whole)
    return fmean(shares)


@torch.no_grad()
def designs() -> list[dict]:
    """Variance of a tiny model's batch loss by time sampling, relative to independent times."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "weft_rl.pipeline", "stages=[base]", f"out={folder}/base"]
        command.append("eval.after_each=false")
        subprocess.run(command, check=True, capture_output=True)
        newest = newest_checkpoint(Path(folder) / "base", "base")
        network = load_model(str(newest), torch.device("cpu"), torch.float32)
    end = network.config.end_token_ids[-1]
    traces = cold_start_traces(BATCH, 0)
    examples, *_ = encode_traces(traces, tiny_tokenizer(), "tiny", end, 200)
    found = {}
    with TemporaryDirectory() as folder:
        for name in ("independent", "stratified", "antithetic"):
            trainer = ColdStartTrainer(
                model=network,
                args=ColdStartConfig(
                    folder,
                    seed=0,
                    use_cpu=True,
                    report_to="none",
                    recipe="weft",
                    t_sampling=name,  # ty: ignore[invalid-argument-type] - one of its literals
                ),
            )
            values = []
            for epoch in range(DRAWS):
                trainer.data_collator.epoch = epoch
                batch = trainer.data_collator(examples)
                values.append(float(trainer.compute_loss(network, batch)))
            found[name] = torch.tensor(values)
    base = found["independent"]
    return [
        {
            "times": name,
            "mean_ratio": float(values.mean() / base.mean()),
            "standard_error": float(values.std() / DRAWS**0.5 / base.mean()),
            "variance_ratio": float(values.var() / base.var()),
            "variance_error": _ratio_error(values, base),
        }
        for name, values in found.items()
    ]


def _ratio_error(values: Tensor, base: Tensor) -> float:
    """Bootstrap standard error of a variance ratio: the weight 1 / t is heavy-tailed."""
    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(200):
        one, other = (
            part[torch.randint(DRAWS, (DRAWS,), generator=generator)] for part in (values, base)
        )
        ratios.append(float(one.var() / other.var()))
    return float(torch.tensor(ratios).std())


def slow_token(ratio: float) -> dict:
    """Share of a slow token's integral kept with a shared t <= 1 - margin."""
    return {"rate_over_mean": ratio, "kept": 1 - TIME_MARGIN**ratio}


def main() -> None:
    """Measure and write the results."""
    result = {
        "length": LENGTH,
        "vocabulary": VOCAB,
        "models": MODELS,
        "draws": DRAWS,
        "batch": BATCH,
        "estimators": estimators(),
        "share_of_times": share_of_times(),
        "designs": designs(),
        "slow": [slow_token(ratio) for ratio in (1, 0.5, 0.1, 0.01)],
    }
    save("objective_evidence", result)


if __name__ == "__main__":
    main()
