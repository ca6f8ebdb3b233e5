"""The loss of every cold-start recipe as one function. B batch, L sequence."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weft_rl.diffusion.exact_elbo import (
    elbo_weights,
    survival_mask_probability,
    token_log_survival,
)
from weft_rl.diffusion.log_probs import mask_id_of, masked_nll
from weft_rl.diffusion.losses import sequence_losses
from weft_rl.diffusion.noise import mask_tokens, sample_time
from weft_rl.diffusion.rates import mean_rate, rates_of, usable_rates
from weft_rl.diffusion.recipes import LossNorm, Recipe, recipe_of
from weft_rl.diffusion.tensor_checks import checked_answer
from weft_rl.diffusion.token_weights import dream_weights, excess_loss_selection, own_probability
from weft_rl.seeding import seed_for
from weft_rl.trainers.entropy_pass import entropy_pass

# Share of tokens of highest excess loss that the authors of Rho-1 keep.
_SELECTED_SHARE = 0.6


class SequenceLosses(NamedTuple):
    """Losses of a batch of sequences, and what they were computed from."""

    losses: Tensor  # (B,) float32
    masked: Tensor  # (B, L) bool
    beta: Tensor  # (B, L) masking rates, 0 outside the answer
    beta_ref: Tensor  # (B, 1), their mean


def weft_loss(
    model: nn.Module,
    input_ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
    *,
    recipe: Recipe | str = "weft",
    seeds: Tensor | Sequence[int] | torch.Generator | None = None,
    loss_norm: LossNorm = "answer",
    exact_elbo: bool = False,
    reference: nn.Module | None = None,
) -> Tensor:
    """Loss of a cold-start recipe for your own training loop: a scalar with gradient.

    model: a masked language model with logits (B, L, V) whose config has mask_token_id.
    input_ids (B, L) long; labels (B, L), -100 for tokens that are not trained (the prompt,
    padding); attention_mask (B, L), 0 on padding; default: 1 everywhere. recipe: a name of
    weft_rl.diffusion.recipes.RECIPES. seeds: one int per row, or a generator that draws them;
    default: torch's global generator. A row's masks depend on its seed only. loss_norm: divisor of
    a sequence's loss (answer length, masked tokens, or 1); exact_elbo: weight tokens so that the
    mean is the exact ELBO; recipes that fix either keep it. reference: rho1's reference model.

    WeFT runs one more forward pass, without gradient, for the entropies of the masked answer.
    Raises ValueError for mismatched shapes, an unknown recipe, a row of labels that are all -100,
    and entropies that are not finite. Source: WeFT, Algorithm 1.

    >>> import torch
    >>> from weft_rl import weft_loss
    >>> from weft_rl.models import LLaDAConfig, LLaDAForMaskedLM
    >>> size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> ids = {"vocab_size": 32, "mask_token_id": 31, "eos_token_id": 1, "pad_token_id": 1}
    >>> model = LLaDAForMaskedLM(LLaDAConfig(**size, **ids, intermediate_size=32))
    >>> input_ids = torch.tensor([[5, 6, 7, 8, 9, 1]])
    >>> labels = torch.tensor([[-100, -100, 7, 8, 9, 1]])  # the first two tokens are the prompt
    >>> loss = weft_loss(model, input_ids, labels, seeds=[0])
    >>> loss.backward()
    """
    visible, answer = checked_answer(input_ids, labels, attention_mask)
    resolved = recipe_of(recipe).resolved(loss_norm, exact_elbo)
    if resolved.needs_reference and reference is None:
        raise ValueError(f"recipe={resolved.name!r}: needs reference=, a reference model")
    rows = _row_seeds(seeds, len(input_ids))
    generators = [torch.Generator().manual_seed(seed) for seed in rows]
    entropy = None
    if resolved.statistic is not None:
        mask_id = mask_id_of(model)
        entropy = entropy_pass(model, input_ids, visible, answer, mask_id, resolved.statistic)
    return sequence_loss(
        model,
        input_ids,
        visible,
        answer,
        resolved,
        entropy,
        sample_time(generators),
        generators,
        [torch.Generator().manual_seed(seed_for(seed, "token")) for seed in rows],
        reference,
    ).losses.mean()


def _row_seeds(seeds: Tensor | Sequence[int] | torch.Generator | None, rows: int) -> list[int]:
    if seeds is None or isinstance(seeds, torch.Generator):
        device = "cpu" if seeds is None else seeds.device
        seeds = torch.randint(2**31, (rows,), generator=seeds, device=device)
    values = [int(seed) for seed in seeds]
    if len(values) != rows:
        raise ValueError(f"seeds: {len(values)} for {rows} rows; give one per row")
    return values


def masking_rates(recipe: Recipe, entropy: Tensor | None, answer: Tensor) -> Tensor:
    """Masking rates (B, L) of a recipe with the floor of usable_rates; 0 outside the answer."""
    values = answer.float() if entropy is None else entropy
    return usable_rates(torch.where(answer, rates_of(recipe.rates, values), 0.0), answer)


def sequence_loss(
    model: nn.Module,
    x0: Tensor,
    attention_mask: Tensor,
    answer: Tensor,
    recipe: Recipe,
    entropy: Tensor | None,
    t: Tensor,
    generators: Sequence[torch.Generator],
    token_generators: Sequence[torch.Generator],
    reference: nn.Module | None = None,
) -> SequenceLosses:
    """Loss of each sequence under a resolved recipe.

    x0, attention_mask: (B, L) long. answer: (B, L) bool. entropy: (B, L), the recipe's statistic of
    answer tokens, if any. t: (B, 1) in (0, 1). generators: of the masks, one per row.
    token_generators: of the exact ELBO's token draws."""
    # 1. masking rates, and the mask probability of each token at time t
    beta = masking_rates(recipe, entropy, answer)
    beta_ref = mean_rate(beta, answer)
    t = t.to(beta.device)
    log_survival = -torch.log1p(-t)
    if recipe.exact_elbo:
        log_survival = token_log_survival(t, beta, beta_ref, answer, token_generators)
    probability = survival_mask_probability(log_survival, beta, beta_ref)
    # 2. noised tokens, and the loss of the masked ones
    xt, masked = mask_tokens(x0, probability, answer, mask_id_of(model), generators)
    nll = masked_nll(model, x0, xt, masked, attention_mask)
    # 3. token weights
    weight = None
    match recipe.token_weights:
        case "sqrt_entropy" if entropy is not None:
            weight = entropy.sqrt()
        case "dream":
            weight = dream_weights(masked, attention_mask.bool())
        case "own_probability":
            weight = own_probability(nll)
        case "excess_loss" if reference is not None:
            with torch.no_grad():
                other = masked_nll(reference, x0, xt, masked, attention_mask)
            weight = excess_loss_selection(nll.detach(), other, masked, _SELECTED_SHARE)
    if recipe.exact_elbo:
        slope = elbo_weights(log_survival, beta, beta_ref, answer)
        weight = slope if weight is None else weight * slope
    # 4. a loss per sequence
    norm = recipe.loss_norm or "answer"
    losses = sequence_losses(nll, masked, probability, answer, weight, norm)
    return SequenceLosses(losses, masked, beta, beta_ref)
