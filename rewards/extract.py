"""How an answer is found in a completion: the only place that knows.

Example: "<reasoning> r1c2=4</reasoning><answer>1432...</answer><|eot_id|>" answers "1432..."."""

import re

# What ends a turn in the families of models that people train; text behind it was never said.
END_TOKENS = (
    *("<|endoftext|>", "<|eot_id|>", "<|im_end|>", "<|end|>", "<|end_of_text|>", "<|eom_id|>"),
    *("<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<|role_end|>", "<|return|>", "<|endofprompt|>"),
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "</s>", "<eos>", "<end_of_turn>", "<turn|>"),
)
# Longest answer that is read: a grid or an expression needs under 300 characters. Without it a
# megabyte of open braces costs a tenth of a second.
LONGEST_ANSWER = 4096

_OPEN, _CLOSE, _BOX = "<answer>", "</answer>", "\\boxed{"
_OPEN_LENGTH = len(_OPEN)
_TAGS = (_OPEN, _CLOSE, "</reasoning>")
_BRACE = re.compile(r"[{}]")
_END = re.compile("|".join(map(re.escape, END_TOKENS)))
# \boxed{5}, \fbox{5}, \boxed 5, and boxed{5} with its backslash forgotten
_ANY_BOX = re.compile(r"\\?(?:boxed|fbox)\s*\{|\\(?:boxed|fbox)(?![A-Za-z])\s*(?=[^\s{}$<])")
_WORD = re.compile(r"[^\s{}$<]{1,100}")
# A box that is never closed holds what stands on its line, without a tag's beginning.
_OPEN_BOX = re.compile(r"[^\n<]*")
_EMPTY_BOX = re.compile(r"\\?(?:boxed|fbox)\s*\{\s*\}?")
# A text has few boxes; of more than this many blank ones at its end none is looked at.
_MOST_BOXES = 8
# How most completions answer, found at once; all else takes the long way to the same answer.
_CONTENT = r"([0-9A-Za-z.,:$%+*/=()^_\\-]{1,100})"
_AFTER = rf"{_CLOSE}|({_END.pattern}|\Z)"
_TAGGED_BOX = re.compile(rf"\s*\\boxed\{{{_CONTENT}\}}\s*(?:{_AFTER})")
_BARE_BOX = re.compile(rf"\\boxed\{{{_CONTENT}\}}")


def before_end(text: str) -> str:
    """The text up to its first end token."""
    end = _end(text, len(text))
    return text if end is None else text[: end.start()]


def _end(text: str, stop: int) -> re.Match[str] | None:
    """The first end token that begins before a place."""
    # one character is found many times faster than a word or a pattern
    start = text.find("<", 0, stop)
    while start >= 0:
        if not text.startswith(_TAGS, start) and (end := _END.match(text, start)):
            return end
        start = text.find("<", start + 1, stop)
    return None


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


def boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{...} that is not blank, braces balanced; None without one.

    \fbox{5}, \boxed 5 and boxed{5} are boxes too. One that is never closed holds the rest of its
    line, as a completion may be cut short or its brace mistyped: 18 of "\boxed{18>"."""
    starts = list(_ANY_BOX.finditer(text))[-_MOST_BOXES:]
    for start in reversed(starts):
        inside = _inside(text, start)
        if inside and not inside.isspace():
            return inside
    return None


def _inside(text: str, box: re.Match[str]) -> str | None:
    """What a box holds; None when that is too long."""
    at = box.end()
    if text[at - 1] != "{":
        word = _WORD.match(text, at)
        return word and word[0].rstrip(".,;")
    depth = 1
    for brace in _BRACE.finditer(text, at, at + LONGEST_ANSWER):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[at : brace.start()]
    line = _OPEN_BOX.match(text, at, at + LONGEST_ANSWER)
    return line and line[0].rstrip(" >.\t\r") if len(text) - at < LONGEST_ANSWER else None


def answer_text(completion: str) -> str | None:
    """The answer of a completion: what its answer tag holds, and of that the \\boxed{...} if any.

    Without a tag, or with a blank one, the last \\boxed{...} of the text; None without either.
    Text after the first end token does not count."""
    # nothing may have ended before the place, nor a tag been closed that this one leaves open
    at = completion.rfind(_OPEN)
    if at >= 0:
        usual = _TAGGED_BOX.match(completion, at + _OPEN_LENGTH)
        closed = usual and (usual.lastindex == 1 or completion.find(_CLOSE, 0, at) < 0)
        if closed and _end(completion, at) is None:
            return usual[1]
    elif (at := completion.rfind(_BOX)) >= 0:
        usual = _BARE_BOX.match(completion, at)
        later = usual and _ANY_BOX.search(completion, usual.end())
        if usual and not later and _end(completion, at) is None:
            return usual[1]
    return _answer_text(completion)


def _answer_text(completion: str) -> str | None:
    """What answer_text gives, for any completion."""
    text = before_end(completion)
    inside = tagged_answer(text)
    if inside is None:
        answer = boxed(text)
    else:
        answer = inside
        if "box" in inside:
            answer = boxed(inside) or _EMPTY_BOX.sub(" ", inside)
        if not answer or answer.isspace():
            answer = boxed(text)
    return answer[:LONGEST_ANSWER] if answer and not answer.isspace() else None
