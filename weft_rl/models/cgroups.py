"""Memory that this process may still take: what the machine has, or less where a cgroup, as a
container's or a batch system's, is limited."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _Layout(NamedTuple):
    """Where a version of cgroups is mounted, and what its files and counts are called."""

    mount: str
    limit: str
    used: str
    # of memory.stat: pages of files and the kernel's tables, given back when something else wants
    cached: tuple[str, ...]


_V1 = _Layout(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_V2 = _Layout(
    "sys/fs/cgroup",
    "memory.max",
    "memory.current",
    ("inactive_file", "active_file", "slab_reclaimable"),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without swapping: the least of MemAvailable and of what each cgroup
    around this process has left; None where nothing says it.

    root: where /proc and /sys are."""
    memory = _table(root / "proc/meminfo").get("MemAvailable:")
    machine = [] if memory is None else [memory * 1024]
    return min([*machine, *_left_in_cgroups(root)], default=None)


def _left_in_cgroups(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        layout = _V1 if controllers else _V2
        mount = root / layout.mount
        folder = mount / path.lstrip("/")
        # a limit holds for all that is below. A container may see the host's path, which is not
        # there, and its own cgroup as the mount
        while True:
            left = _left(folder, layout)
            if left is not None:
                yield left
            if folder == mount:
                break
            folder = folder.parent


def _left(folder: Path, layout: _Layout) -> int | None:
    limit, used = (_text(folder / name).strip() for name in (layout.limit, layout.used))
    if not (limit.isdigit() and used.isdigit()):  # "max", or no such file
        return None
    counts = _table(folder / "memory.stat")
    cached = sum(counts.get(name, 0) for name in layout.cached)
    return max(int(limit) - int(used) + cached, 0)


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = [line.split() for line in _text(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
