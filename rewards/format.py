r"""Format rewards, independent of correctness: the intent of d1's rewards, in [0, 1].

Multi-line reasoning counts, text after an end token is ignored, and length has no effect."""

import re
from collections.abc import Sequence
from typing import Any

from weft_rl.rewards.extract import answer_text, before_end, boxed, tagged_answer

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
_INTEGER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.0+)?")


def tags(completion: str, **_: Any) -> float:
    """Return 0.25 for each of the four tags that occurs once and in order."""
    text = before_end(completion)
    at, right = -1, 0
    for tag in TAGS:
        place = text.find(tag)
        if place <= at or text.count(tag) != 1:
            continue
        at, right = place, right + 1
    return right / len(TAGS)


def soft(completion: str, **_: Any) -> float:
    """Return 1 for tagged reasoning, then a tagged non-blank answer, nothing else; or 0."""
    parts = _parts(before_end(completion))
    if parts is None:
        return 0.0
    before, _reasoning, between, answer, after = parts
    return float(bool(answer.strip()) and not (before + between + after).strip())


def strict(completion: str, **_: Any) -> float:
    """Return 1 for soft's format with each tag on its own line, else 0."""
    parts = _parts(before_end(completion).strip())
    if parts is None or not parts[3].strip():
        return 0.0
    before, reasoning, between, answer, after = parts
    lines = all(len(part) > 1 and part[0] == part[-1] == "\n" for part in (reasoning, answer))
    return float(lines and (before, between, after) == ("", "\n", ""))


def integer(completion: str, **_: Any) -> float:
    """Return 1 if the answer is only an integer ("-5", "1,000" and "12.0" count), else 0."""
    answer = answer_text(completion)
    return float(answer is not None and _INTEGER.fullmatch(answer.strip()) is not None)


def boxed_answer(completion: str, **_: Any) -> float:
    r"""Return 0.5 for a non-blank answer tag plus 0.5 for a \boxed{} inside it."""
    inside = tagged_answer(before_end(completion))
    if inside is None or not inside.strip():
        return 0.0
    return 0.5 + 0.5 * bool((boxed(inside) or "").strip())


def _parts(text: str) -> Sequence[str] | None:
    parts = []
    for tag in TAGS:
        before, match, text = text.partition(tag)
        if not match or any(other in before for other in TAGS):
            return None
        parts.append(before)
    return None if any(tag in text for tag in TAGS) else [*parts, text]
