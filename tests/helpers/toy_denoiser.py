"""A table denoiser of three tokens."""

from itertools import product

import torch

V, MASK = 3, 3


def table(length, seed=0):
    """log p(token at i | visible tokens): {canvas: (T, V)}."""
    generator = torch.Generator().manual_seed(seed)
    return {
        canvas: torch.randn(length, V, generator=generator, dtype=torch.float64).log_softmax(-1)
        for canvas in product(range(V + 1), repeat=length)
    }


def view_log_probs(model, tokens, views):
    """log p of the true tokens per view: (N, D, T)."""
    rows = []
    for masked in views.masked.flatten(0, 1):
        canvas = tuple(MASK if hide else token for hide, token in zip(masked, tokens, strict=True))
        rows.append(model[canvas][torch.arange(len(tokens)), torch.tensor(tokens)])
    return torch.stack(rows).view(views.masked.shape)
