"""Command-line arguments: key=value pairs, flags, and suggestions for errors."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, get_origin

from weft_rl.config.fields import Leaf, leaves, shown
from weft_rl.errors import UserError
from weft_rl.runs.renamed import RENAMED, renamed

_HELP, _HELP_ALL, _PRINT = ("--help", "-h"), "--help-all", "--print-config"
# Other spellings of options.
ALIASES = {"task.prompt": "prompt_template"}
# Minimum difflib ratio of a suggestion, chosen by hand.
_SIMILAR = 0.7


def flags(argv: Sequence[str], known: Mapping[str, Leaf]) -> tuple[list[str], str]:
    """Split off the flag (--help, --help-all, --print-config or "").

    Raises UserError for an unknown flag."""
    words, flag = [], ""
    for i, word in enumerate(argv):
        if word in (*_HELP, _HELP_ALL):
            flag = _HELP_ALL if word == _HELP_ALL else "--help"
        elif word == _PRINT:
            flag = flag or word
        elif _has_dash(word):
            raise UserError(f"{shown(word)}: {_dash_fix(word, argv[i + 1 :], known)}")
        else:
            words.append(word)
    return words, flag


def _has_dash(word: str) -> bool:
    return word.startswith("-") and not word[1:2].isdigit()  # -1 is a value


def _dash_fix(word: str, after: Sequence[str], known: Mapping[str, Leaf]) -> str:
    flag, equals, value = word.partition("=")
    if flag in (*_HELP, _HELP_ALL, _PRINT):
        return f"{flag} takes no value; write {flag}"
    key = flag.lstrip("-").replace("-", "_")
    value = value if equals else _value_after(after, known)
    near = [key] if key in known else nearest(key, known) or [shown(key)] * bool(equals)
    fix = " or ".join(f"{name}={shown(value) or '...'}" for name in near)
    fix = f"options have no dashes, write {fix}" if fix else "there are --help and --print-config"
    return f"no such flag; {fix}"


def pairs_of(
    schema: type[Any], words: Sequence[str], positional: str | None, extra: Sequence[str] = ()
) -> dict[str, str | list[str]]:
    """Map each key to its text. Raises UserError for unknown, malformed and repeated options."""
    known = leaves(schema)
    pairs: dict[str, str | list[str]] = {}
    loose: list[str] = []
    for i, word in enumerate(words):
        key, equals, text = word.partition("=")
        key = ALIASES.get(key, key)
        after = _value_after(words[i + 1 :], known)
        # a folder may have the name of an option, but then no number follows it
        is_key = key in known and key != positional and after.replace(".", "").isdecimal()
        if positional is not None and (not (equals or is_key) or "/" in key):
            loose.append(word)
            continue
        if key not in known and key not in extra:
            problem = unknown_option(key, text if equals else None, known)
            raise UserError(f"{shown(word) or repr(word)}: {problem}")
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


def _value_after(words: Sequence[str], known: Mapping[str, Leaf]) -> str:
    """Return the value after a blank and an optional equals sign; "" if an option follows."""
    value = next(filter(None, (word.removeprefix("=") for word in words[:2])), "")
    return "" if _has_dash(value) or "=" in value or value in known else shown(value)


def unknown_option(key: str, text: str | None, known: Mapping[str, Leaf]) -> str:
    """Describe an unknown key and its fix. text: its value; None: there is no equals sign."""
    equals = text is not None
    if key in RENAMED:
        new = " ".join(f"{name}={shown(value)}" for name, value in renamed(key, text or "").items())
        return f"renamed; write {new if equals else RENAMED[key]}"
    inside = next((full for full in known if full.startswith(f"{key}.")), None)
    if inside:
        return f"is a group of options; set one of them, like {inside}=..."
    near = nearest(key, known)
    fix = f"did you mean {' or '.join(near)}?" if near else "--help lists the options"
    return f"{'no such option' if equals else 'is not key=value'}; {fix}"


def nearest(key: str, known: Mapping[str, Leaf]) -> list[str]:
    """Return the most similar known keys; empty if none is similar."""
    likeness = {full: _likeness(key[:100], full) for full in known}  # difflib is quadratic
    best = max(likeness.values(), default=0.0)
    return [full for full, value in likeness.items() if value == best and best >= _SIMILAR]


def _likeness(key: str, full: str) -> float:
    """Return 2 for the same block and initials (rl.lr), else at most 1."""
    block, _, name = full.rpartition(".")
    given_block, _, given = key.rpartition(".")
    if len(given) > 1 and "".join(word[:1] for word in name.split("_")) == given:
        return 1.0 + (block == given_block)
    # a wrong or missing block leaves the last name
    pairs = (full, key), (name, given)
    return max(SequenceMatcher(None, *pair).ratio() for pair in pairs)
