"""The cache folder, and the lock of its entries."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """Return the cache folder, which may not exist yet: $WEFT_RL_CACHE or ~/.cache/weft-rl."""
    return Path(os.environ.get("WEFT_RL_CACHE") or Path.home() / ".cache" / "weft-rl")


@contextmanager
def cache_lock(name: str) -> Generator[None]:
    """Wait until no other process writes the cache entry, then lock it."""
    path = cache_root() / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
