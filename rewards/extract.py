"""How an answer is found in a completion: the only place that knows.

Example: "<reasoning> r1c2=4</reasoning><answer>1432...</answer><|eot_id|>" answers "1432..."."""

import re

# What ends a completion in LLaDA's family; text after the first of them was never said.
END_TOKENS = ("<|endoftext|>", "<|eot_id|>")
# Longest answer that is read: a grid or an expression needs under 300 characters. Without it a
# megabyte of open braces costs a tenth of a second.
LONGEST_ANSWER = 4096

_OPEN, _CLOSE = "<answer>", "</answer>"
_BRACE = re.compile(r"[{}]")


def before_end(text: str) -> str:
    """The text up to its first end token."""
    places = [at for token in END_TOKENS if (at := text.find(token)) >= 0]
    return text[: min(places)] if places else text


def tagged_answer(text: str) -> str | None:
    """What stands in the last <answer> tag that is closed, else after the last open one.

    None without a tag. An open tag counts: a completion may be cut short after its answer."""
    # the last open tag that has a closing one behind it; -1 when there is no such pair
    start = text.rfind(_OPEN, 0, max(text.rfind(_CLOSE), 0))
    if start < 0:
        start = text.rfind(_OPEN)
    if start < 0:
        return None
    return text[start + len(_OPEN) :].partition(_CLOSE)[0]


def boxed(text: str, command: str = "\\boxed") -> str | None:
    """What stands in the last \\boxed{...}, braces balanced; None without one that is closed.

    command: another LaTeX command to look for instead."""
    start = text.rfind(command + "{")
    if start < 0:
        return None
    start += len(command) + 1
    end = text.find("}", start)
    if end < 0:
        return None
    if text.find("{", start, end) < 0:  # nothing nested, as most often
        return text[start:end] if end - start < LONGEST_ANSWER else None
    depth = 1
    for brace in _BRACE.finditer(text, start, start + LONGEST_ANSWER):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : brace.start()]
    return None


def answer_text(completion: str) -> str | None:
    """The answer of a completion: what its answer tag holds, and of that the \\boxed{...} if any.

    Without a tag the last \\boxed{...} of the text; None without either, and for a blank answer.
    Text after the first end token does not count."""
    text = before_end(completion)
    inside = tagged_answer(text)
    in_box = boxed(text if inside is None else inside)
    answer = inside if in_box is None else in_box
    return None if answer is None or not answer.strip() else answer[:LONGEST_ANSWER]
