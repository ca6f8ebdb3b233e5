"""How an answer is found in a completion: the only place that knows.

Example: "<reasoning> r1c2=4</reasoning><answer>1432...</answer><|eot_id|>" answers "1432..."."""

import re

# What ends a completion in LLaDA's family; text after the first of them was never said.
END_TOKENS = ("<|endoftext|>", "<|eot_id|>")
# Longest answer that is read: a grid or an expression needs under 300 characters. Without it a
# megabyte of open braces costs a tenth of a second.
LONGEST_ANSWER = 4096

_OPEN, _CLOSE, _BOX = "<answer>", "</answer>", "\\boxed{"
_OPEN_LENGTH = len(_OPEN)
_BRACE = re.compile(r"[{}]")
# How most completions answer, found at once; all else takes the long way to the same answer.
_CONTENT = r"([0-9A-Za-z.,:$%+*/=()^_\\-]{1,100})"
_AFTER = rf"{_CLOSE}|({'|'.join(map(re.escape, END_TOKENS))}|\Z)"
_TAGGED_BOX = re.compile(rf"\s*\\boxed\{{{_CONTENT}\}}\s*(?:{_AFTER})")
_BARE_BOX = re.compile(rf"\\boxed\{{{_CONTENT}\}}")


def before_end(text: str) -> str:
    """The text up to its first end token."""
    bar = text.find("|")  # one character is found many times faster than a word
    if bar < 0:
        return text
    if bar > 0 and text.startswith(END_TOKENS, bar - 1):
        return text[: bar - 1]
    places = [at for token in END_TOKENS if (at := text.find(token, bar)) >= 0]
    return text[: min(places)] if places else text


def tagged_answer(text: str) -> str | None:
    """What stands in the last <answer> tag that is closed, else after the last open one.

    None without a tag. An open tag counts: a completion may be cut short after its answer."""
    start = text.rfind(_OPEN)
    if start < 0:
        return None
    end = text.find(_CLOSE, start)
    if end < 0 and (end := text.rfind(_CLOSE, 0, start)) >= 0:
        # an answer that was closed before; none when that tag only closes something else
        earlier = text.rfind(_OPEN, 0, end)
        start, end = (earlier, text.find(_CLOSE, earlier)) if earlier >= 0 else (start, -1)
    return text[start + len(_OPEN) : end if end >= 0 else None]


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
    inside = text[start:end]
    if "{" not in inside:  # nothing nested, as most often
        return inside if len(inside) < LONGEST_ANSWER else None
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
    # nothing may have ended before the place, nor a tag been closed that this one leaves open
    at = completion.rfind(_OPEN)
    if at >= 0:
        usual = _TAGGED_BOX.match(completion, at + _OPEN_LENGTH)
        closed = usual and (usual.lastindex == 1 or completion.find(_CLOSE, 0, at) < 0)
        if closed and completion.find("|", 0, at) < 0:
            return usual[1]
    elif (at := completion.rfind(_BOX)) >= 0:
        usual = _BARE_BOX.match(completion, at)
        if usual and completion.find("|", 0, at) < 0:
            return usual[1]
    return _answer_text(completion)


def _answer_text(completion: str) -> str | None:
    """What answer_text gives, for any completion."""
    text = before_end(completion)
    inside = tagged_answer(text)
    answer = boxed(text if inside is None else inside)
    if answer is None:
        answer = inside
    return answer[:LONGEST_ANSWER] if answer and not answer.isspace() else None
