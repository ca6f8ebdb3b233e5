"""Numerical integration over the masking time."""

import torch
from torch import Tensor


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and weights, exact for polynomials below degree 2 count: two (count,)
    float32.

    Source: Golub and Welsch, the eigenvalues of the Legendre polynomials' Jacobi matrix."""
    k = torch.arange(1, count, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    jacobi = torch.diag(beside, 1) + torch.diag(beside, -1)
    value, vector = torch.linalg.eigh(jacobi)
    return ((value + 1) / 2).float(), (vector[0] ** 2).float()
