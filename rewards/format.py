r"""Rewards for how an answer is presented, right or wrong.

Example: "<reasoning>\nTwo and two.\n</reasoning>\n<answer>\n4\n</answer>" gets 1 from each. They
reward what d1's were meant to: reasoning may have many lines, text behind an end token is not
there, nothing is paid for or taken off by the length of a text, and none leaves [0, 1]."""

import re
from collections.abc import Sequence
from typing import Any

from weft_rl.rewards.extract import answer_text, before_end, boxed, tagged_answer

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
_INTEGER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.0+)?")


def tags(completion: str, prefill: str = "", **_: Any) -> float:
    """A quarter for each of the four tags that occurs once, all those before it in their order.

    prefill: what the prompt already wrote of the completion, such as d1's "<reasoning>"."""
    text = before_end(prefill + completion)
    at, right = -1, 0
    for tag in TAGS:
        place = text.find(tag)
        if place <= at or text.count(tag) != 1:
            continue
        at, right = place, right + 1
    return right / len(TAGS)


def soft(completion: str, prefill: str = "", **_: Any) -> float:
    """1 for reasoning, then an answer that is not blank, each in its tags once; else 0.

    Blanks may stand around the tags, nothing else."""
    parts = _parts(before_end(prefill + completion))
    if parts is None:
        return 0.0
    before, _reasoning, between, answer, after = parts
    return float(bool(answer.strip()) and not (before + between + after).strip())


def strict(completion: str, prefill: str = "", **_: Any) -> float:
    """1 for soft's form with each tag on a line of its own, as the prompt shows it; else 0.

    White space at either end does not matter: d1 wanted exactly one line break there."""
    parts = _parts(before_end(prefill + completion).strip())
    if parts is None or not parts[3].strip():
        return 0.0
    before, reasoning, between, answer, after = parts
    lines = all(len(part) > 1 and part[0] == part[-1] == "\n" for part in (reasoning, answer))
    return float(lines and (before, between, after) == ("", "\n", ""))


def integer(completion: str, **_: Any) -> float:
    """1 if the answer is nothing but a whole number: "-5", "1,000" and "12.0" are; else 0."""
    answer = answer_text(completion)
    return float(answer is not None and _INTEGER.fullmatch(answer.strip()) is not None)


def boxed_answer(completion: str, **_: Any) -> float:
    r"""Half for an answer tag that is not blank, and half for a \boxed{} inside of it.

    d1 looks for the box by a misspelt name and pays everyone a quarter of its maximum."""
    inside = tagged_answer(before_end(completion))
    if inside is None or not inside.strip():
        return 0.0
    return 0.5 + 0.5 * bool((boxed(inside) or "").strip())


def _parts(text: str) -> Sequence[str] | None:
    """The five texts around and between the tags, if each tag occurs once and in order."""
    parts = []
    for tag in TAGS:
        before, found, text = text.partition(tag)
        if not found or any(other in before for other in TAGS):
            return None
        parts.append(before)
    return None if any(tag in text for tag in TAGS) else [*parts, text]
