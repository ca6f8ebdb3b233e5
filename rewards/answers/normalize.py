r"""Normalization of answers: "$\mathbf{3\tfrac12}$.", "3½" and "3 1/2" all become "\frac{7}{2}"."""

import re
from fractions import Fraction
from functools import lru_cache

from weft_rl.rewards.answers.latex import TooDeep, respell, unicode_to_latex

LONGEST = 300  # longer texts are not answers of these tasks and stay unchanged

_ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(?:equation|align|gather|aligned|gathered|split|displaymath|math"
    r"|multline|eqnarray|center|alignat|flalign)\*?\}"
)
# Markdown bold and code; ** between digits is Python's power operator.
_MARKDOWN = re.compile(r"(?<![0-9a-zA-Z)}\]])\*\*|\*\*(?![0-9a-zA-Z(\\])|`+|^#+\s|^\*\s+")
_LEAD = re.compile(
    r"\s*(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:(?:final|correct)\s+)?answer\s*"
    r"(?:is|:|=)+\s*:?",
    re.IGNORECASE,
)
_PUNCTUATION_BEFORE = re.compile(
    r"^(?:[\s=:;,]|\\(?:approx|therefore|implies|Rightarrow|to)(?![a-z]))+"
)
_PUNCTUATION_AFTER = re.compile(r"(?:[\s.,;:?]|(?<![0-9a-zA-Z)}\]])!)+$")
_NAMES = re.compile(
    r"(?<![A-Za-z\\{])(pi|theta|alpha|beta|gamma|delta|lambda|sigma|omega|phi|infty|sqrt|sin|cos|tan"
    r"|cot|sec|csc|arcsin|arccos|arctan|log|ln|pm|cdot|cup|cap|emptyset)(?![A-Za-z])"
)
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", re.IGNORECASE)
_SIGNS = (("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "), ("+/-", r"\pm "), ("+-", r"\pm "))

# Thousands separators: a comma, {,} in LaTeX, or thin spaces.
_THIN = r"(?:\{,\}\\?!?|,\\!|\\[,!:;]|~)\s*"
_THIN_GROUPS = re.compile(rf"(?<![0-9.])[0-9]{{1,3}}(?:{_THIN}[0-9]{{3}})+(?![0-9])")
_COMMA_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")

_DIGITS = r"(?<![0-9.])([0-9]*)\.([0-9]*)"
# Groups: integer digits, non-repeating decimals, repeating decimals.
_REPEATING = [
    re.compile(rf"{_DIGITS}\\(?:overline|bar)\{{([0-9]+)\}}"),
    re.compile(rf"{_DIGITS}\\dot\{{([0-9])\}}(?:([0-9]*)\\dot\{{([0-9])\}})?"),
    re.compile(r"(?<![0-9.])([0-9]+)\.([0-9]*)\(([0-9]+)\)"),
    re.compile(
        r"(?<![0-9.])([0-9]*)\.([0-9]*?)(?:([0-9])\3{2,}|([0-9]{2,}?)\4+)(?:\\ldots|\.\.\.)"
    ),
]
_BEFORE_MIXED = r"(?<![0-9a-zA-Z.,}\])])"
_MIXED = re.compile(
    rf"{_BEFORE_MIXED}([0-9]+)(?: ?\\frac\{{([0-9]+)\}}\{{([0-9]+)\}}| ([0-9]+)/([0-9]+)(?![0-9.]))"
)
_PERCENT = re.compile(
    r"\\text\{(?:percent|percentage|pct|per cent)\}|(?<=[0-9}]) ?(?:percent|pct|per cent)(?![a-z])"
)
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_COUNTED = re.compile(
    r"(?<![0-9.,/}])(\\frac\{[0-9]+\}\{[0-9]+\}|[0-9]+(?:\.[0-9]+|/[0-9]+)?)(?: ?\\text\{| )?("
    + "|".join(_POWERS)
    + r")(?![a-z]*[a-rt-z])s?(?:\b(.*?)\})?"
)


@lru_cache(maxsize=8192)  # the key recurs in every completion
def normalized(text: str) -> str:
    r"""Return the normalized answer, or the text unchanged if it is too long or too deep.

    Drops delimiters, fonts, colors and punctuation. Unicode and names become commands, mixed
    numbers and repeating decimals fractions, "5 million" 5000000. Units stay."""
    text = text.strip()
    if (text.isdecimal() and text.isascii()) or len(text) > 4 * LONGEST:
        return text
    plain = _without_delimiters(unicode_to_latex(text))
    plain = _THIN_GROUPS.sub(lambda m: re.sub("[^0-9]", "", m[0]), plain)
    for sign, command in _SIGNS:
        plain = plain.replace(sign, command)
    plain = _INFINITY.sub(r"\\infty ", _NAMES.sub(r"\\\1 ", plain))
    try:
        plain = respell(plain)
    except TooDeep:
        return text
    plain = _PUNCTUATION_BEFORE.sub("", plain)
    dots = "..." if re.search(r"[0-9]\.\.\.$", plain) else ""  # of a decimal
    return _normalized_numbers(_PUNCTUATION_AFTER.sub("", plain) + dots) or text


def _without_delimiters(text: str) -> str:
    text = _ENVIRONMENT.sub(" ", _LEAD.sub("", text, count=1))
    text = _MARKDOWN.sub(" ", text).replace("**", "^")
    if text.count("$") - text.count("\\$") == 1:  # unpaired: an amount of money
        text = re.sub(r"(?<!\\)\$(?=\s*[0-9.])|(?<=[0-9])\$", r"\\$", text)
    return re.sub(r"(?<!\\)\$", " ", text)


def _normalized_numbers(text: str) -> str:
    if not any(bracket in text for bracket in "([") and "\\{" not in text:
        text = _COMMA_GROUPS.sub(lambda m: m[0].replace(",", ""), text)
    if "." in text:
        for decimal in _REPEATING:
            text = decimal.sub(_repeating, text)
    text = _MIXED.sub(_improper, _PERCENT.sub("%", text))
    return _COUNTED.sub(_multiplied, _COUNTED.sub(_multiplied, text))  # twice: 5 hundred thousand


def _repeating(decimal: re.Match[str]) -> str:
    """Convert a repeating decimal to a fraction: 0.1(6) has digits 0, 1 and 6."""
    whole, once, *groups = (group or "" for group in decimal.groups())
    again = "".join(groups)
    if set(again) <= {"0"}:
        return f"{whole}.{once}0"
    value = int(whole or 0) + Fraction(int(once or 0), 10 ** len(once))
    return _fraction(value + Fraction(int(again), 10 ** len(once) * (10 ** len(again) - 1)))


def _improper(mixed: re.Match[str]) -> str:
    whole, upper, lower = int(mixed[1]), int(mixed[2] or mixed[4]), int(mixed[3] or mixed[5])
    return mixed[0] if upper >= lower else _fraction(whole + Fraction(upper, lower))


def _multiplied(counted: re.Match[str]) -> str:
    upper, lower = re.findall(r"[0-9.]+|$", counted[1].replace("/", " "))[:2]
    if lower and not int(lower):
        return counted[0]
    value = Fraction(upper) / Fraction(lower or 1) * 10 ** _POWERS[counted[2]]
    unit = (counted[3] or "").strip()
    return _fraction(value) + (f"\\text{{{unit}}}" if unit else "")


def _fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
