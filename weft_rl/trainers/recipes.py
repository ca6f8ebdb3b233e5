"""The cold starts by name: what each masks faster and what it weights."""

from dataclasses import dataclass, replace
from typing import Literal

from weft_rl.diffusion.losses import Normalizer
from weft_rl.diffusion.rates import ESTIMATED, RateKind

WeightKind = Literal["none", "sqrt_entropy", "dream", "own_probability", "excess_loss"]
# How a forward pass' times are drawn: row by row, one from each of B strata, or in pairs t, 1 - t.
Times = Literal["independent", "stratified", "antithetic"]


@dataclass(frozen=True)
class Recipe:
    """What the cold start minimises: rates, token weights, how a sequence is normalised, slope."""

    rates: RateKind = "uniform"
    weights: WeightKind = "none"
    normalizer: Normalizer = "answer"
    slope: bool = False

    @property
    def estimated(self) -> Literal["entropy", "nll"] | None:
        """What the estimate pass must tell of each answer token; None needs no such pass."""
        return ESTIMATED[self.rates] or ("entropy" if self.weights == "sqrt_entropy" else None)


# Stage name -> objective. Normaliser and slope are the options', but for the stages in _FIXED.
RECIPES: dict[str, Recipe] = {
    "sft": Recipe("uniform"),  # LLaDA's
    "weft": Recipe("sqrt_entropy"),
    "weft_paper": Recipe("sqrt_entropy", normalizer="masked"),  # Algorithm 1 as printed
    "weft_exact": Recipe("sqrt_entropy", slope=True),  # the bound of Theorem 1
    "weft_entropy": Recipe("entropy"),  # Table 5
    "nll": Recipe("nll"),  # Eq. 14, Table 3
    "weft_sw": Recipe("uniform", "sqrt_entropy"),  # Eq. 15-16, Table 4
    "dream": Recipe("uniform", "dream"),  # Eq. 17, Table 4
    "dft": Recipe("uniform", "own_probability"),  # arXiv 2508.05629
    "rho1": Recipe("uniform", "excess_loss"),  # in the manner of arXiv 2404.07965
}
_FIXED = ("weft_paper", "weft_exact")


def recipe_of(stage: str, normalizer: Normalizer, slope: bool) -> Recipe:
    """The objective of a cold start under the options. Raises KeyError for an unknown stage."""
    recipe = RECIPES[stage]
    return recipe if stage in _FIXED else replace(recipe, normalizer=normalizer, slope=slope)
