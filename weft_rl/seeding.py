"""Seeds derived from named parts, so that a draw depends on what it is for and on nothing else."""

from hashlib import blake2b


def seed_for(*parts: int | str) -> int:
    """A 32-bit seed from its parts, the same on any day and machine.

    parts: for instance (seed, "mask", step, row). Returns an int in [0, 2**32).
    Raises TypeError for anything but int and str (bool included): their text form could change."""
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(f"seed_for takes int and str parts, got {part!r}")
    # repr keeps 1 apart from "1"; the tuple's commas keep (1, 23) apart from (12, 3).
    # Four bytes: a CPU torch.Generator uses only the low 32 bits of its seed.
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest(), "big")
