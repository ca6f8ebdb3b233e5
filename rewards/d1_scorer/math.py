r"""Verdicts of d1's published evaluation for GSM8K and MATH.

Both read past the end token. GSM8K takes the first \boxed{} that holds a number. MATH compares the
text of the last \boxed{} after clean-up.
Source: dllm-reasoning/d1, eval/parse_and_get_acc.py, reimplemented from its behavior."""

import re
from collections.abc import Iterator
from typing import Any

LONGEST = 32_768  # longest text that is read, several times the length of 512 tokens

_OPEN, _CLOSE = "<answer>", "</answer>"
_BOX, _FRAME = r"\boxed", r"\fbox"
# \d matches digits of every script, as in d1; float() accepts them
_NUMBER = re.compile(r"-?\d+\.?\d*")
_FLAT_BOX = re.compile(r"\\boxed\{([^}]*)\}")
_ONLY_DOTS = re.compile(r"\.+")

# Order matters: later rules see the output of earlier ones.
_BEFORE_UNITS = (
    *(("\n", ""), (r"\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac")),
    *((r"\left", ""), (r"\right", ""), (r"^{\circ}", ""), (r"^\circ", ""), (r"\$", "")),
)
_AFTER_UNITS = ((r"\%", ""), (" .", " 0."), ("{.", "{0."))


def first_answer(text: str) -> str | None:
    """Content of the first <answer>...</answer>, stripped."""
    inside, closed, _ = text.partition(_OPEN)[2].partition(_CLOSE)
    return inside.strip() if closed else None


def last_box(text: str) -> str | None:
    r"""Return d1's last \boxed: the text if there is none, None if it is unclosed.

    "\boxed " without a brace extends to the next dollar sign; \fbox keeps its wrapping."""
    if f"{_BOX} " in text:
        return text.rpartition(f"{_BOX} ")[2].partition("$")[0]
    start = text.rfind(_BOX)
    if start < 0:
        start = text.rfind(_FRAME)
    if start < 0:
        return text
    depth = 0
    for brace in re.finditer("[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0 and brace[0] == "}":
            whole = text[start : start + brace.end()]
            opening = f"{_BOX}{{"
            return whole[len(opening) : -1] if whole.startswith(opening) else whole
    return None


def gsm8k_number(completion: str) -> float | None:
    r"""Return the number d1 extracts: the first numeric \boxed{}, else the last in <answer>."""
    text = completion[:LONGEST]
    for content in _flat_boxes(text):
        content = content.strip()
        if content.isdecimal():
            return float(content)
        if content and not _ONLY_DOTS.fullmatch(content):
            number = _as_float(content)
            if number is None and (match := _NUMBER.search(content)):
                number = _as_float(match[0])
            if number is not None:
                return number
    inside = first_answer(text)
    if not inside:
        return None
    number = _as_float(inside)
    numbers = _NUMBER.findall(inside) if number is None else []
    return _as_float(numbers[-1]) if numbers else number


def gsm8k(completion: str, answer: float | None, **_: Any) -> float:
    """Return 1 if the number d1 extracts equals the answer, else 0; None is never correct."""
    return float(answer is not None and gsm8k_number(completion) == answer)


def math_answer(completion: str) -> str | None:
    r"""Return the text d1 compares: the last \boxed, else all of the text, else <answer>."""
    text = completion[:LONGEST]
    boxed = last_box(text)
    if boxed:
        return boxed
    inside = first_answer(text)
    return boxed if inside is None else inside


def math500(completion: str, answer: str, **_: Any) -> float:
    """Return 1 if both answers are the same text after d1's clean-up, else 0."""
    given = math_answer(completion)
    return float(given is not None and same_text(given, answer))


def same_text(one: str, other: str) -> bool:
    """Return whether two LaTeX answers match after clean-up, or as raw text if clean-up fails."""
    try:
        return cleaned(one) == cleaned(other)
    except ValueError:
        return one == other


def cleaned(text: str) -> str:
    r"""Normalize LaTeX spelling: \frac12, \tfrac{1}{2} and 1/2 become the same text.

    Raises ValueError where d1 fails: \sqrt or \frac without argument, other slashes, two units."""
    for old, new in _BEFORE_UNITS:
        text = text.replace(old, new)
    text, *units = text.split(r"\text{ ")
    if len(units) > 1:
        raise ValueError("more than one unit")
    for old, new in _AFTER_UNITS:
        text = text.replace(old, new)
    if not text:
        return text
    if text[0] == ".":
        text = f"0{text}"
    # "k = 5", but not a name or an equation
    left, equals, right = text.partition("=")
    if equals and "=" not in right and len(left) <= 2:
        text = right
    text = _braced_fractions(_braced_roots(text).replace(" ", ""))
    return r"\frac{1}{2}" if text == "0.5" else _slash_as_fraction(text)


def _flat_boxes(text: str) -> Iterator[str]:
    r"""Content of each \boxed{ up to the next brace, on one line; linear time."""
    for line in text.split("\n"):
        yield from _FLAT_BOX.findall(line[: line.rfind("}") + 1])


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _braced_roots(text: str) -> str:
    first, *parts = text.split(r"\sqrt")
    if "" in parts:
        raise ValueError("a root of nothing")
    braced = (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}" for part in parts)
    return r"\sqrt".join([first, *braced])


def _braced_fractions(text: str) -> str:
    first, *parts = text.split(r"\frac")
    braced = [first]
    for part in parts:
        if not part:
            raise ValueError("a fraction of nothing")
        if part[0] == "{":
            braced.append(part)
        elif len(part) == 1:
            return text
        else:
            lower = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            braced.append(f"{{{part[0]}}}{lower}")
    return r"\frac".join(braced)


def _slash_as_fraction(text: str) -> str:
    """Rewrite a/b as a fraction. Raises ValueError unless both sides are integers."""
    if text.count("/") != 1:
        return text
    upper, lower = map(int, text.split("/"))
    return rf"\frac{{{upper}}}{{{lower}}}" if text == f"{upper}/{lower}" else text
