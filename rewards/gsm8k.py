r"""GSM8K rewards: one number, compared by exact value: "1000.0" matches "#### 1,000"."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from weft_rl.rewards.answers.normalize import normalized
from weft_rl.rewards.extract import answer_text

# Above any quantity in a school problem; bounds the size of fractions.
_MOST_DIGITS, _LARGEST = 30, 1e30

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(rf"{_DECIMAL}(?:\s*/\s*[0-9]+)?")
# Ignored next to a number: money, degrees, the power of a unit.
_AROUND = re.compile(
    r"\\\$|\^\{\\circ\}"
    r"|((?:\\text\{[^{}]*[A-Za-z]\}|(?<![A-Za-z\\])[A-Za-z]{2,}|[0-9] ?m))"
    r"(?:\^\{[23]\}|[23](?![0-9]))"
)
_NEGATIVE = re.compile(r"(?<=[A-Za-z]{2}) -(?=[0-9.])")
_SUFFIX = re.compile(r"(?<=[0-9]) ?([kK]|M)(?![A-Za-z0-9])")
_TIMES = {"k": 1000, "K": 1000, "M": 1_000_000}
_MINUS = re.compile(r"\b(?:[Mm]inus|[Nn]egative)\s+(?=[0-9.])")
_AND_PART = re.compile(r"(?<=[0-9]) and (?:a|one)[ -](half|quarter)\b")
_PARTS = {"half": " 1/2", "quarter": " 1/4"}
# "x = 3, y = 4" states more than one number
_TWO_NAMES = re.compile(r"=[^=]*[0-9][^=0-9]*(?:[,;]|\band\b) *[A-Za-z] *$")
_MULTIPLE = re.compile(
    r"(?:twice|thrice|double|triple|half(?: of)?|(?:third|quarter|fourth|fifth) of)[ $\\]*$", re.I
)
# Operators next to a number change it: x^2, |-5|, 5 + x, \sqrt{16}, 5 - x.
_OPERATION = re.compile(
    r"[|^_+*\u221a-\u221c\u00b1\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079]"
    r"|\\(?:sqrt|frac|binom|log|ln|exp|sin|cos|tan|pi|cdot|pm|mp"
    r"|[lr]floor|[lr]ceil|overline)(?![a-zA-Z])|-\s*[a-zA-Z({](?![a-zA-Z])"
)


def exact(completion: str, answer: str | float | None, **_: Any) -> float:
    """Return 1 if the completion states only the number of `answer` (after any ####), else 0."""
    given = answer_text(completion)
    value = None if given is None else number(given)
    return float(value is not None and value == gold(answer))


reward = exact


@lru_cache(maxsize=4096)  # problems repeat during a run
def gold(answer: str | float | None) -> Fraction | None:
    """Return the number of a record: a number, or the one after the last ####."""
    if isinstance(answer, str):
        return number(answer.rpartition("####")[2])
    if answer is None or not abs(answer) < _LARGEST:  # NaN too
        return None
    return Fraction(str(answer))  # via text: the float 0.1 means one tenth


@lru_cache(maxsize=4096)  # completions of a prompt often agree
def number(text: str) -> Fraction | None:
    r"""Return the exact value of the only number in a text; None for none or several.

    For "3 + 4 = 7" the text after the last = counts. Accepts thousands separators, dollar signs,
    units, fractions and a minus sign. Other operations are not evaluated: "5!" states no number."""
    # "of -5" is a number, "5 -3" and "x - 5" are differences
    before, _, text = text.rpartition("=")
    if before and _TWO_NAMES.search(before):
        return None
    text = _NEGATIVE.sub(" negative ", text)
    text = normalized(_AND_PART.sub(lambda m: _PARTS[m[1]], text))
    text = _AROUND.sub(r" \1", text)
    times = 1
    if suffix := _SUFFIX.search(text):
        times, text = _TIMES[suffix[1]], _SUFFIX.sub("", text, count=1)
    text = _FRACTION.sub(r" \1/\2 ", _MINUS.sub("-", text))
    numbers = _NUMBER.findall(text)
    if len(numbers) != 1 or len(numbers[0]) > _MOST_DIGITS:
        return None
    before, _, after = text.partition(numbers[0])
    sign, before = _sign(before) if before else (1, "")
    if not sign or after.startswith("!") or _MULTIPLE.search(before):
        return None
    if _OPERATION.search(f"{before} {after}"):
        return None
    upper, _, lower = numbers[0].replace(",", "").partition("/")
    divisor = int(lower or 1)
    return sign * times * Fraction(upper) / divisor if divisor else None


def _sign(before: str) -> tuple[int, str]:
    """The sign and the text before it; 0 after another term: "x - 5", "x-5", "--5", "f(5)"."""
    lead = before.rstrip(" \t\n({[")
    opening = before[len(lead) : len(lead) + 1]
    if lead[-1:] not in ("+", "-"):
        return (0 if opening == "(" and lead[-1:].isalpha() else 1), before
    unsigned = lead[:-1]
    bare = unsigned.rstrip()
    # "of -5" is a number, "of - 5" may be a difference
    joined = bare if opening.isspace() else unsigned
    if joined[-1:].isalnum() or joined[-1:] in (")", "]", "}") or bare[-1:] in ("+", "-"):
        return 0, before
    return (-1 if lead[-1] == "-" else 1), unsigned
