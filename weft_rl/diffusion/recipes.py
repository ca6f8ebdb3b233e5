"""Cold-start recipes, one record each; imports no torch, so that options and help load quickly."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

# Masking rate of an answer token; see rates.token_rates.
RateKind = Literal["uniform", "sqrt_entropy", "entropy", "nll"]
# Loss weight of a masked token; see token_weights.
WeightKind = Literal["none", "sqrt_entropy", "dream", "own_probability", "excess_loss"]
# Divisor of a sequence's loss: answer length, number of masked tokens, or 1.
LossNorm = Literal["answer", "masked", "none"]
# Statistic of the fully masked prediction that determines the rates.
Statistic = Literal["entropy", "nll"]
RATE_STATISTIC: Mapping[RateKind, Statistic | None] = {
    "uniform": None,
    "sqrt_entropy": "entropy",
    "entropy": "entropy",
    "nll": "nll",
}
_RATE_WORDS: Mapping[RateKind, str] = {
    "uniform": "uniform",
    "sqrt_entropy": "root of the entropy",
    "entropy": "entropy",
    "nll": "-log p of the token",
}


@dataclass(frozen=True)
class Recipe:
    """Objective of a cold start.

    name: its stage. label: name in reports. weight: description of the loss weight. loss_norm,
    exact_elbo: fixed by the recipe; None: taken from the options."""

    name: str
    label: str
    rates: RateKind = "uniform"
    token_weights: WeightKind = "none"
    weight: str = "1 / t"
    source: str = ""
    loss_norm: LossNorm | None = None
    exact_elbo: bool | None = None

    @property
    def statistic(self) -> Statistic | None:
        """Statistic computed per answer token by the entropy pass; None: no entropy pass."""
        weighs = self.token_weights == "sqrt_entropy"
        return RATE_STATISTIC[self.rates] or ("entropy" if weighs else None)

    @property
    def needs_entropy(self) -> bool:
        """Whether a step runs a no-grad forward pass with the answer fully masked."""
        return self.statistic is not None

    @property
    def needs_reference(self) -> bool:
        """Whether the loss uses a reference model."""
        return self.token_weights == "excess_loss"

    @property
    def rate_words(self) -> str:
        """Description of the masking rate."""
        return _RATE_WORDS[self.rates]

    def resolved(self, loss_norm: LossNorm, exact_elbo: bool) -> "Recipe":
        """Return the recipe with unset fields filled from the options."""
        return replace(
            self,
            loss_norm=self.loss_norm or loss_norm,
            exact_elbo=exact_elbo if self.exact_elbo is None else self.exact_elbo,
        )


_SFT = Recipe("sft", "SFT", source="LLaDA")
_WEFT = Recipe("weft", "WeFT", "sqrt_entropy", weight="1 / t_i", source="WeFT, Algorithm 1")
_BY_MASKED = "1 / t_i, divided by the number of masked tokens"
_BY_ENTROPY, _OWN_P = "root of the entropy / t", "the token's own probability / t"
RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _SFT,
        _WEFT,
        replace(_WEFT, name="gift", label="GIFT", source="GIFT, the new name of WeFT"),
        replace(
            _WEFT,
            name="weft_paper",
            label="WeFT (as printed)",
            weight=_BY_MASKED,
            source="WeFT, Algorithm 1 as printed",
            loss_norm="masked",
            exact_elbo=False,
        ),
        replace(
            _WEFT,
            name="weft_exact",
            label="WeFT (exact ELBO)",
            weight="dt_i/dt over its mean / t_i",
            source="WeFT, Theorem 1",
            loss_norm="answer",
            exact_elbo=True,
        ),
        replace(
            _WEFT,
            name="weft_entropy",
            label="WeFT (entropy)",
            rates="entropy",
            source="WeFT, Table 5",
        ),
        replace(_WEFT, name="nll", label="NLL", rates="nll", source="WeFT, Eq. 14 and Table 3"),
        Recipe("weft_sw", "WeFT (SW)", "uniform", "sqrt_entropy", _BY_ENTROPY, "WeFT, Eq. 15-16"),
        Recipe("dream", "Dream", "uniform", "dream", "unmasked neighbors / t", "WeFT, Eq. 17"),
        Recipe("dft", "DFT", "uniform", "own_probability", _OWN_P, "arXiv 2508.05629"),
        Recipe(
            "rho1",
            "Rho-1",
            "uniform",
            "excess_loss",
            "1 / t of the 60% of highest excess loss",
            "after arXiv 2404.07965",
        ),
    )
}


def recipe_of(recipe: Recipe | str) -> Recipe:
    """Return the recipe of a name. Raises ValueError with the known names."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"recipe={recipe!r}: unknown; use one of {', '.join(RECIPES)}")
    return RECIPES[recipe]
