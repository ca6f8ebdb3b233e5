"""Stateless uniform draws that depend on (seed, purpose, step, position) only; numpy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weft_rl.seeding import seed_for

Keys = NDArray[np.uint64]

# SplitMix64's increment and multipliers, and another odd constant with balanced bits for the
# second counter. Weaker constants would correlate neighboring steps or positions.
_STEP, _POSITION = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1342543DE82EF95)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def stream_keys(seeds: Sequence[int], purpose: str) -> Keys:
    """Return a 64-bit key per seed for this purpose: (N,)."""
    # two 32-bit halves: with a single half, 10^5 rows would contain a collision
    halves = [[seed_for(seed, purpose, half) for half in (0, 1)] for seed in seeds]
    high, low = np.array(halves, dtype=np.uint64).reshape(-1, 2).T
    return (high << np.uint64(32)) | low


def uniform(keys: Keys, step: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray:
    """Return float64 draws in [0, 1) with 53 random bits. Source: SplitMix64, once per counter."""
    bits = _mix(keys + _mix(step.astype(np.uint64) * _STEP + _STEP))
    bits = _mix(bits + position.astype(np.uint64) * _POSITION)
    return (bits >> np.uint64(11)) * 2.0**-53


def _mix(bits: Keys) -> Keys:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
