"""Extraction of the answer from a completion; every task uses it."""

import re

# End-of-turn tokens of common model families; text after one is ignored.
END_TOKENS = (
    *("<|endoftext|>", "<|eot_id|>", "<|im_end|>", "<|end|>", "<|end_of_text|>", "<|eom_id|>"),
    *("<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<|role_end|>", "<|return|>", "<|endofprompt|>"),
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "</s>", "<eos>", "<end_of_turn>", "<turn|>"),
)
# Grids and expressions need under 300 characters; 1 MB of open braces takes 0.1 s.
LONGEST_ANSWER = 4096

_OPEN, _CLOSE = "<answer>", "</answer>"
_BRACE = re.compile(r"[{}]")
# Prefilter: few tags share the second character of an end token.
_SECOND = "".join({token[1] for token in END_TOKENS})
_END = re.compile(rf"<(?=[{_SECOND}])(?:{'|'.join(re.escape(t[1:]) for t in END_TOKENS)})")
# \boxed{5}, \fbox{5}, \boxed 5, and boxed{5} without its backslash.
_ANY_BOX = re.compile(
    r"box(?:(?:ed|(?<=fbox))\s*\{"
    r"|(?:(?<=\\box)ed|(?<=\\fbox))(?![A-Za-z])\s*(?=[^\s{}$<]))"
)
_WORD = re.compile(r"[^\s{}$<]{1,100}")
# An unclosed box extends to the end of its line or the next tag.
_OPEN_BOX = re.compile(r"[^\n<]*")
_EMPTY_BOX = re.compile(r"\\?(?:boxed|fbox)\s*\{\s*\}?")
# Bounds on time: number of trailing blank boxes and of "box" words.
_MOST_BOXES, _MOST_WORDS = 8, 1000


def before_end(text: str) -> str:
    """Return the text up to its first end token."""
    end = _END.search(text)
    return text[: end.start()] if end else text


def tagged_answer(text: str) -> str | None:
    """Return the last closed <answer>, else the text after an open tag (truncation), or None."""
    start = text.rfind(_OPEN)
    if start < 0:
        return None
    end = text.find(_CLOSE, start)
    if end < 0 and (end := text.rfind(_CLOSE, 0, start)) >= 0:
        # the previous closed answer; none if this tag closes something else
        earlier = text.rfind(_OPEN, 0, end)
        start, end = (earlier, text.find(_CLOSE, earlier)) if earlier >= 0 else (start, -1)
    return text[start + len(_OPEN) : end if end >= 0 else None]


def boxed(text: str) -> str | None:
    r"""Return the content of the last non-blank \boxed{...} with balanced braces, or None.

    \fbox{5}, \boxed 5 and boxed{5} count too. An unclosed box holds the rest of its line, because a
    completion may be truncated or its brace mistyped: "\boxed{18>" gives 18."""
    at = len(text)
    for _ in range(_MOST_WORDS):
        if (at := text.rfind("box", 0, at)) < 0:
            break
    boxes = list(_ANY_BOX.finditer(text, max(at, 0)))[-_MOST_BOXES:]
    contents = (_content(text, box) for box in reversed(boxes))
    return next((content for content in contents if content and not content.isspace()), None)


def _content(text: str, box: re.Match[str]) -> str | None:
    start = box.end()
    if text[start - 1] != "{":
        word = _WORD.match(text, start)
        return word and word[0].rstrip(".,;")
    depth = 1
    for brace in _BRACE.finditer(text, start, start + LONGEST_ANSWER):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : brace.start()]
    line = _OPEN_BOX.match(text, start, start + LONGEST_ANSWER)
    is_short = len(text) - start < LONGEST_ANSWER
    return line[0].rstrip(" >.\t\r") if line and is_short else None


def answer_text(completion: str) -> str | None:
    r"""Return the answer tag's content without \boxed{}, else the last box; None without either."""
    text = before_end(completion)
    answer = tagged_answer(text) or ""
    if "box" in answer:
        answer = boxed(answer) or _EMPTY_BOX.sub(" ", answer[: 2 * LONGEST_ANSWER])
    if not answer or answer.isspace():
        answer = boxed(text)
    return answer[:LONGEST_ANSWER] if answer else None
