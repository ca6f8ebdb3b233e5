r"""One spelling for a final answer, whatever its notation; every task reads answers through it.

Example: "$\mathbf{3\tfrac12}$.", "3½" and "3 1/2" are all "\frac{7}{2}"."""

import re
from fractions import Fraction
from functools import lru_cache

from weft_rl.rewards.answers.latex_groups import TooDeep, spelled
from weft_rl.rewards.answers.unicode_latex import in_latex

# Longer texts are no answers of these tasks; they are compared as they stand.
LONGEST = 300

_ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(?:equation|align|gather|aligned|gathered|split|displaymath|math"
    r"|multline|eqnarray|center|alignat|flalign)\*?\}"
)
# bold type and code of Markdown; between digits two stars are Python's power
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
# Names that are written without their backslash.
_NAMES = re.compile(
    r"(?<![A-Za-z\\{])(pi|theta|alpha|beta|gamma|delta|lambda|sigma|omega|phi|infty|sqrt|sin|cos|tan"
    r"|cot|sec|csc|arcsin|arccos|arctan|log|ln|pm|cdot|cup|cap|emptyset)(?![A-Za-z])"
)
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", re.IGNORECASE)
_SIGNS = (("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "), ("+/-", r"\pm "), ("+-", r"\pm "))

# Digits in groups: the comma that LaTeX writes without a space, and thin spaces.
_THIN = r"(?:\{,\}\\?!?|,\\!|\\[,!:;]|~)\s*"
_THIN_GROUPS = re.compile(rf"(?<![0-9.])[0-9]{{1,3}}(?:{_THIN}[0-9]{{3}})+(?![0-9])")
_COMMA_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")

_DIGITS = r"(?<![0-9.])([0-9]*)\.([0-9]*)"
_OVERLINED = re.compile(rf"{_DIGITS}\\(?:overline|bar)\{{([0-9]+)\}}")
_DOTTED = re.compile(rf"{_DIGITS}\\dot\{{([0-9])\}}(?:([0-9]*)\\dot\{{([0-9])\}})?")
_BRACKETED = re.compile(r"(?<![0-9.])([0-9]+)\.([0-9]*)\(([0-9]+)\)")
_GOING_ON = re.compile(
    r"(?<![0-9.])([0-9]*)\.([0-9]*?)(?:([0-9])\3{2,}|([0-9]{2,}?)\4+)(?:\\ldots|\.\.\.)"
)
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


@lru_cache(maxsize=8192)  # answers repeat: the key in every completion, and common answers
def normalized(text: str) -> str:
    r"""The answer in one spelling of LaTeX, or as it stands where it is too long or too deep.

    Delimiters, fonts, colors and punctuation around it are dropped, Unicode and plain names become
    commands. Numbers lose the marks between thousands; mixed numbers and repeating decimals become
    fractions, "5 million" becomes 5000000. Units stay; see math_labels."""
    text = text.strip()
    if (text.isdecimal() and text.isascii()) or len(text) > 4 * LONGEST:
        return text
    plain = _undelimited(in_latex(text))
    plain = _THIN_GROUPS.sub(lambda m: re.sub("[^0-9]", "", m[0]), plain)
    for sign, command in _SIGNS:
        plain = plain.replace(sign, command)
    plain = _INFINITY.sub(r"\\infty ", _NAMES.sub(r"\\\1 ", plain))
    try:
        plain = spelled(plain)
    except TooDeep:
        return text
    return _numbers(_bare(plain)) or text


def _undelimited(text: str) -> str:
    """Without what marks a formula, and words before it."""
    text = _ENVIRONMENT.sub(" ", _LEAD.sub("", text, count=1))
    text = _MARKDOWN.sub(" ", text).replace("**", "^")
    dollars = text.count("$") - text.count("\\$")
    if dollars == 1:  # no pair: an amount of money
        text = re.sub(r"(?<!\\)\$(?=\s*[0-9.])|(?<=[0-9])\$", r"\\$", text)
    return re.sub(r"(?<!\\)\$", " ", text)


def _bare(text: str) -> str:
    """Without punctuation around it, of which a factorial and the dots of a decimal are none."""
    text = _PUNCTUATION_BEFORE.sub("", text)
    dots = "..." if re.search(r"[0-9]\.\.\.$", text) else ""
    return _PUNCTUATION_AFTER.sub("", text) + dots


def _numbers(text: str) -> str:
    """With its numbers as integers, decimals and fractions of one form."""
    if not any(bracket in text for bracket in "([") and "\\{" not in text:
        text = _COMMA_GROUPS.sub(lambda m: m[0].replace(",", ""), text)
    if "." in text:
        text = _OVERLINED.sub(lambda m: _repeating(m[1], m[2], m[3]), text)
        text = _DOTTED.sub(
            lambda m: _repeating(m[1], m[2], m[3] + (m[4] or "") + (m[5] or "")), text
        )
        text = _BRACKETED.sub(lambda m: _repeating(m[1], m[2], m[3]), text)
        text = _GOING_ON.sub(lambda m: _repeating(m[1], m[2], m[3] or m[4]), text)
    text = _MIXED.sub(_improper, _PERCENT.sub("%", text))
    return _COUNTED.sub(_multiplied, _COUNTED.sub(_multiplied, text))  # 5 hundred thousand


def _repeating(whole: str, once: str, again: str) -> str:
    """A repeating decimal as a fraction: of 0.1(6) the digits 0, 1 and 6."""
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
    after = (counted[3] or "").strip()
    return _fraction(value) + (f"\\text{{{after}}}" if after else "")


def _fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
