"""Damaged and hostile files and arguments: each is used, or refused with one line."""

import json
import math
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft_rl.config.fields import leaves
from weft_rl.config.load import load_run_config
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError

# Processor time that no case may take: what is allowed for the slowest, many times over.
_HANG_S = 60

_ODD_TEXT = st.sampled_from(
    [
        *("", " ", "..", "../../etc/passwd", "/etc/passwd", "~", "a/b", "None", "null", "NaN"),
        *("${seed}", "???", "{{ 7*7 }}", "\ud800", "\0", "\x85", "😀", "[", "]", "[[", "a=b", "-1"),
        *("1e999", "0x10", "9" * 5000, "x" * 5000, "\n", "true", "os.system", "<script>", "\u0661"),
    ]
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 1e308, -0.0, math.inf, math.nan]),
    st.floats(),
    _ODD_TEXT,
    st.text(),
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
CHECKS = list(HealthCheck)
_LINES = st.lists(st.one_of(JSON.map(lambda v: json.dumps(v).encode()), st.binary()), max_size=4)


class Damage(NamedTuple):
    """What happens to a file: its content replaced, cut, or bytes or values of it changed."""

    file: str
    place: float  # in [0, 1): which of its bytes or values
    kind: str
    value: Any


def damages(*files: str) -> st.SearchStrategy[Damage]:
    kinds = st.sampled_from(["value", "value", "value", "drop", "cut", "flip", "replace"])
    place = st.floats(0, 1, exclude_max=True)
    return st.builds(Damage, st.sampled_from(files), place, kinds, JSON)


def damage(content: bytes, what: Damage) -> bytes:
    """The damaged content; values of JSON, or of lines of it, are changed, else bytes."""
    at = int(what.place * len(content))
    if what.kind in ("value", "drop"):
        for lines in ([content], content.splitlines()):
            with suppress(ValueError):
                trees = _changed([json.loads(line) for line in lines], what)
                text = "\n".join(map(json.dumps, trees))
                return text.encode("utf-8", "surrogatepass")
        return content[:at] + b"\xff" + content[at:]
    if what.kind == "replace":
        return json.dumps(what.value).encode()
    if what.kind == "cut":
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"\0"


def _changed(tree: Any, what: Damage) -> Any:
    places = [*_places(tree)]
    *path, last = places[int(what.place * len(places))]
    node = tree
    for key in path:
        node = node[key]
    if what.kind == "drop":
        del node[last]
    else:
        node[last] = what.value
    return tree


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values; of a long list or mapping, such as a vocabulary, a few."""
    items = [*(tree.items() if isinstance(tree, dict) else enumerate(tree))][:60]
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def arguments() -> st.SearchStrategy[list[str]]:
    values = st.one_of(_ODD_TEXT, st.integers().map(str), st.floats().map(str), st.text())
    keys = st.sampled_from([*leaves(RunConfig), "preset", "rl.preset", "model", "sampler", "rl"])
    pairs = st.builds("{}={}".format, keys, values)
    return st.lists(st.one_of(pairs, pairs, pairs, st.text(), _ODD_TEXT), max_size=4)


def read_arguments(words: list[str]) -> None:
    load_run_config([word for word in words if "--" not in word], command="weft_rl.pipeline")


def lines() -> st.SearchStrategy[bytes]:
    return _LINES.map(b"\n".join)


def fuzz(
    use: Callable[[Any], Any], cases: st.SearchStrategy[Any], count: int, seed: int = 0
) -> Counter[str]:
    """Use so many cases; count them and those refused. Raises what is no UserError."""
    seen: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(cases)
    def once(case: Any) -> None:
        seen["cases"] += 1
        try:
            with no_hang():
                use(case)
        except UserError as error:
            seen["refused"] += 1
            if not str(error).strip():
                raise AssertionError("an error without words") from error

    once()
    return seen


@contextmanager
def no_hang(seconds: float = _HANG_S) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def with_damage(folder: Path, whole: dict[str, bytes], what: Damage) -> None:
    for name, content in whole.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage(content, what) if name == what.file else content)
