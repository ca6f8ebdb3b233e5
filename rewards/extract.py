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
_BRACE = re.compile(r"[{}]")
# all begin with <, most with <|: a text without is passed through at the speed of a search for <
_NAMED = "|".join(re.escape(token[2:]) for token in END_TOKENS if token.startswith("<|"))
_OTHERS = "|".join(re.escape(token[1:]) for token in END_TOKENS if not token.startswith("<|"))
_SECOND = "".join({token[1] for token in END_TOKENS})
_END = re.compile(rf"<(?=[{_SECOND}])(?:\|(?=[A-Za-z])(?:{_NAMED})|{_OTHERS})")
# \boxed{5}, \fbox{5}, \boxed 5, and boxed{5} with its backslash forgotten
# it begins with a letter that is seldom: the place of a box is found several times faster
_ANY_BOX = re.compile(
    r"box(?:(?:ed|(?<=fbox))\s*\{"
    r"|(?:(?<=\\box)ed|(?<=\\fbox))(?![A-Za-z])\s*(?=[^\s{}$<]))"
)
_WORD = re.compile(r"[^\s{}$<]{1,100}")
# A box that is never closed holds what stands on its line, without a tag's beginning.
_OPEN_BOX = re.compile(r"[^\n<]*")
_EMPTY_BOX = re.compile(r"\\?(?:boxed|fbox)\s*\{\s*\}?")
# A text has few boxes; of more than this many blank ones at its end none is looked at.
_MOST_BOXES = 8
# Nor of more than this many words "box", which boxes are among.
_MOST_WORDS = 1000
# How most completions answer, found at once; all else takes the long way to the same answer.
_CHARACTERS = r"0-9A-Za-z.,:$%+*/=()^_\\-"
_CONTENT = rf"([{_CHARACTERS}][ {_CHARACTERS}]{{0,99}})"
_AFTER = rf"{_CLOSE}|({_END.pattern}|\Z)"
_TAGGED_BOX = re.compile(rf"\s*\\boxed\{{{_CONTENT}\}}\s*(?:{_AFTER})")
_BARE_BOX = re.compile(rf"\\boxed\{{{_CONTENT}\}}")


def before_end(text: str) -> str:
    """The text up to its first end token."""
    end = _END.search(text)
    return text[: end.start()] if end else text


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
    last = text.rfind("box") - 1
    if last >= 0 and text.startswith(_BOX, last):  # nothing nested, as most often
        end = text.find("}", last, last + LONGEST_ANSWER)
        inside = text[last + len(_BOX) : max(end, 0)]
        if inside and "{" not in inside and not inside.isspace():
            return inside
    at = len(text)
    for _ in range(_MOST_WORDS):
        if (at := text.rfind("box", 0, at)) < 0:
            break
    starts = list(_ANY_BOX.finditer(text, max(at, 0)))[-_MOST_BOXES:]
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
        if usual and (usual.lastindex == 1 or completion.find(_CLOSE, 0, at) < 0):
            content = usual[1]
            if "box" not in content and not _END.search(completion, 0, at):
                return content
    elif (at := completion.rfind(_BOX)) >= 0:
        usual = _BARE_BOX.match(completion, at)
        later = completion.find("box", at + len(_BOX)) >= 0
        if usual and not later and not _END.search(completion, 0, at):
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
            answer = boxed(inside) or _EMPTY_BOX.sub(" ", inside[: 2 * LONGEST_ANSWER])
        if not answer or answer.isspace():
            answer = boxed(text)
    return answer[:LONGEST_ANSWER] if answer and not answer.isspace() else None
