"""Command-line arguments: key=value pairs, flags, and suggestions for errors."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, get_origin

from weft_rl.config.fields import Leaf, leaves, shown
from weft_rl.errors import UserError
from weft_rl.runs.renamed import RENAMED, renamed

_FLAGS = ("--help", "-h", "--print-config")
# Minimum difflib ratio of a suggestion, chosen by hand.
_SIMILAR = 0.7


def flags(argv: Sequence[str], known: Mapping[str, Any]) -> tuple[list[str], str]:
    """Split off the flag (--help, --print-config or ""). Raises UserError for an unknown flag."""
    words, wanted = [], ""
    for i, word in enumerate(argv):
        if word in ("--help", "-h"):
            wanted = "--help"
        elif word == "--print-config":
            wanted = wanted or word
        elif word.startswith("-") and not word[1:2].isdigit():  # -1 is a value
            raise UserError(_dashed(word, argv[i + 1 :], known))
        else:
            words.append(word)
    return words, wanted


def _dashed(word: str, after: Sequence[str], known: Mapping[str, Any]) -> str:
    key, equals, value = word.lstrip("-").partition("=")
    if f"--{key}" in _FLAGS and equals:
        return f"{shown(word)}: --{key} takes no value; write --{key}"
    name = key.replace("-", "_")
    meant = [name] if name in known else nearest(name, known)
    if not equals:
        value = after[0] if after and is_value(after[0], known) else "..."
    if meant:
        fix = " or ".join(f"{near}={shown(value) or '...'}" for near in meant)
        return f"{shown(word)}: no such flag; options have no dashes, write {fix}"
    fix = "there are --help and --print-config"
    fix = f"options have no dashes, write {shown(key)}=..." if equals else fix
    return f"{shown(word)}: no such flag; {fix}"


def is_value(word: str, known: Mapping[str, Any]) -> bool:
    """Return whether an argument can be a value: neither a flag nor an option."""
    is_flag = word.startswith("-") and not word[1:2].isdigit()
    return word != "" and not is_flag and word.partition("=")[0] not in known


def pairs_of(
    schema: type[Any], words: Sequence[str], positional: str | None, extra: Sequence[str] = ()
) -> dict[str, str | list[str]]:
    """Map each key to its text. Raises UserError for unknown, malformed and repeated options."""
    known = leaves(schema)
    pairs: dict[str, str | list[str]] = {}
    loose: list[str] = []
    for i, word in enumerate(words):
        key, equals, text = word.partition("=")
        after = _value_after(words[i + 1 :], known)
        # a folder may have the name of an option, but then no number follows it
        is_key = key in known and key != positional and after.replace(".", "").isdecimal()
        if positional is not None and (not (equals or is_key) or "/" in key):
            loose.append(word)
            continue
        if key in RENAMED and key not in known:
            new = " ".join(f"{name}={shown(value)}" for name, value in renamed(key, text).items())
            raise UserError(f"{shown(word)}: renamed; write {new if equals else RENAMED[key]}")
        if key not in known and key not in extra:
            raise UserError(f"{shown(word) or repr(word)}: {_unknown(key, bool(equals), known)}")
        if not equals:
            raise UserError(f"{key}: needs a value; write {key}={after or '...'}")
        if text == "" and after:
            raise UserError(f"{key}=: a blank is before its value; write {key}={after}")
        if key in pairs:
            raise UserError(f"{shown(word)}: already given as {key}={shown(pairs[key])}; keep one")
        pairs[key] = text
    if positional is not None and loose:
        many = get_origin(known[positional].kind) is list
        if positional in pairs:
            raise UserError(f"{shown(loose[0])}: {positional}= is given too; keep one of them")
        if len(loose) > 1 and not many:
            raise UserError(f"{shown(loose[1])}: there is one {positional} already; keep one")
        pairs[positional] = loose if many else loose[0]
    return pairs


def _value_after(words: Sequence[str], known: Mapping[str, Any]) -> str:
    """Return the value after a blank and an optional equals sign."""
    rest = [word.removeprefix("=") for word in words[:2]]
    value = next((word for word in rest if word), "")
    return shown(value) if is_value(value, known) and "=" not in value else ""


def _unknown(key: str, equals: bool, known: Mapping[str, Leaf]) -> str:
    inside = [full for full in known if full.startswith(f"{key}.")]
    if inside:
        return f"is a group of options; set one of them, like {inside[0]}=..."
    near = nearest(key, known)
    fix = f"did you mean {' or '.join(near)}?" if near else "--help lists the options"
    return f"no such option; {fix}" if equals else f"is not key=value; {fix}"


def nearest(key: str, known: Mapping[str, Any]) -> list[str]:
    """Return the most similar known keys; empty if none is similar."""
    key = key[:100]  # difflib is quadratic in the length
    block, _, name = key.rpartition(".")
    # rl.lr or lr: initials of an option name
    short = [
        full for full in known if _initials(full) == name and full.rpartition(".")[0] == block
    ] or [full for full in known if _initials(full) == name]
    if len(name) > 1 and short:
        return short
    likeness = {
        full: max(
            SequenceMatcher(None, full, key).ratio(),
            # a wrong or missing block
            SequenceMatcher(None, full.rpartition(".")[2], name).ratio(),
        )
        for full in known
    }
    best = max(likeness.values(), default=0.0)
    return [full for full, value in likeness.items() if value == best and best >= _SIMILAR]


def _initials(key: str) -> str:
    return "".join(word[:1] for word in key.rpartition(".")[2].split("_"))
