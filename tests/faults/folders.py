"""A run folder as bytes by path, without what differs between two equal runs."""

import json
from pathlib import Path
from typing import Any

# The one thing that two equal runs do not share: how long each step took.
_TIMES = ("time_s", "step_time")


def contents(run: Path) -> dict[str, bytes]:
    """Every file below a folder, the hidden ones too.

    Left out: the lock, which names the process that held it last, the logs of a comparison's runs,
    to which every try adds its lines, and timings."""
    return {
        str(path.relative_to(run)): _without_times(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.suffix != ".log"
    }


def differences(run: Path, wanted: dict[str, bytes]) -> list[str]:
    """What is missing, too much or different, by path; empty for an equal folder."""
    found = contents(run)
    said = [f"missing: {name}" for name in wanted.keys() - found.keys()]
    said += [f"too much: {name}" for name in found.keys() - wanted.keys()]
    both = wanted.keys() & found.keys()
    return sorted(said + [f"different: {name}" for name in both if wanted[name] != found[name]])


def _without_times(path: Path) -> bytes:
    if path.name == "metrics.jsonl":
        rows = [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    if path.name == "trainer_state.json" or path.name.startswith("metric_line"):
        return json.dumps(_timeless(json.loads(path.read_text()))).encode()
    if path.name == "SHA256SUMS":
        # the sum of a file with timings
        lines = path.read_bytes().splitlines(keepends=True)
        return b"".join(line for line in lines if b"trainer_state.json" not in line)
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value
