"""Seeds derived from named parts, independent of other draws."""

from hashlib import blake2b


def seed_for(*parts: int | str) -> int:
    """Derive a 32-bit seed from its parts, identical on any machine.

    parts: for example (seed, "mask", step, row). Returns an int in [0, 2**32).
    Raises TypeError for types other than int and str (also bool): their text form could change."""
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(f"seed_for takes int and str parts, got {part!r}")
    # repr distinguishes 1 from "1"; the tuple's commas distinguish (1, 23) from (12, 3).
    # Four bytes, because a CPU torch.Generator uses only the low 32 bits of its seed.
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest(), "big")
