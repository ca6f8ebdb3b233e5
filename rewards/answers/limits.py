r"""Which LaTeX answers are not worth reading: they would keep a parser or sympy busy for seconds.

Example: "9^{9^{9}}", "99999!" and twenty brackets in each other. No answer of MATH is one of them,
however it is spelled. One pass over the text, before anything else reads it."""

import re
from dataclasses import dataclass, field
from math import log10

# The longest answer of MATH-500 has 53 characters and brackets two deep. Each limit leaves an
# answer several times what it needs; what lies beyond took over a second of processor time.
_LONGEST, _DEEPEST, _MOST_BARS = 300, 8, 12
_MOST_DIGITS = 10_000  # that a power or a factorial is worth; 2^{2005} has 604
_MOST_EXPANDED = 60  # names in a bracket times its exponent, all added: what multiplying out makes
_MOST_SUMS = 2
_LARGEST_LOG = 9.0  # beyond it an exponent is too large whatever its base

_TOKEN = re.compile(
    r"(?P<skip>\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! %$]|\s+)"
    r"|(?P<open>\\?[({\[])|(?P<close>\\?[)}\]])|(?P<power>\^|\*\*)|(?P<factorial>!)"
    r"|(?P<number>[0-9]{1,300})|(?P<name>\\?[A-Za-z]+)|.",
    re.DOTALL,
)
_SUM = re.compile(r"\\(?:i*int|oint|sum|prod|lim)(?![A-Za-z])")
_MANY_TERMS = re.compile(r"\\(?:sum|prod)(?![A-Za-z])(?=.*[0-9]{3})", re.DOTALL)
_LARGE_BINOMIAL = re.compile(r"\\[dt]?binom(?=.*[0-9]{6})", re.DOTALL)


def is_too_costly(text: str) -> bool:
    """Whether reading or computing what a text states may take seconds."""
    return (
        len(text) > _LONGEST
        or text.count("|") > _MOST_BARS
        or len(_SUM.findall(text)) > _MOST_SUMS
        or _MANY_TERMS.search(text) is not None
        or _LARGE_BINOMIAL.search(text) is not None
        or _is_large(text)
    )


@dataclass
class _Item:
    """A number, name or bracket: the logarithm of what it may be worth, and how many names."""

    log: float = 0.0
    names: int = 0
    is_bracket: bool = False


@dataclass
class _Bracket:
    """What is known of an open bracket; `chain` is a base and its exponents, still to be read."""

    log: float = 0.0
    names: int = 0
    chain: list[_Item] = field(default_factory=list)
    joins: bool = False  # whether a ^ stands before the next item


def _is_large(text: str) -> bool:
    """Whether brackets are nested too deep, or a power or factorial is too large to compute."""
    stack, expanded = [_Bracket()], 0.0
    for token in _TOKEN.finditer(text):
        kind, inner = token.lastgroup, stack[-1]
        if kind == "open":
            stack.append(_Bracket())
        elif kind == "close" and len(stack) > 1:
            expanded += _close_chain(inner)
            stack.pop()
            expanded += _add(stack[-1], _Item(inner.log, inner.names, is_bracket=True))
        elif kind == "power":
            inner.joins = True
        elif kind == "factorial" and inner.chain:
            value = 10 ** min(inner.chain[-1].log, _LARGEST_LOG)
            inner.chain[-1].log = value * log10(max(value, 1))
        elif kind == "number":
            expanded += _add(inner, _Item(log10(max(int(token[0]), 1))))
        elif kind == "name":  # half a digit is about what a variable stands for
            expanded += _add(inner, _Item(0.5, 0 if token[0].startswith("\\") else 1))
        if len(stack) - 1 > _DEEPEST:
            return True
    for bracket in reversed(stack):
        expanded += _close_chain(bracket)
    return expanded > _MOST_EXPANDED or any(bracket.log > _MOST_DIGITS for bracket in stack)


def _add(bracket: _Bracket, item: _Item) -> float:
    """Put an item behind a ^ or begin a chain with it; returns what is expanded by the last."""
    expanded = 0.0 if bracket.joins else _close_chain(bracket)
    bracket.chain.append(item)
    bracket.joins = False
    return expanded


def _close_chain(bracket: _Bracket) -> float:
    """Reckon a base and its exponents, from the right, to the bracket; returns what is expanded."""
    if not bracket.chain:
        return 0.0
    item, expanded = bracket.chain[-1], 0.0
    for base in reversed(bracket.chain[:-1]):
        exponent = 10 ** min(item.log, _LARGEST_LOG)
        expanded += base.names * exponent if base.is_bracket else 0.0
        item = _Item(base.log * exponent, base.names + item.names)
    bracket.log += item.log
    bracket.names += item.names
    bracket.chain.clear()
    return expanded
