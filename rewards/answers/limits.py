r"""Limits on LaTeX answers that would take a parser or sympy seconds, such as "9^{9^{9}}"."""

import re
from dataclasses import dataclass, field
from math import log10

# MATH-500 answers have up to 53 characters and depth 2; beyond, some take over 1 s of CPU time.
_LONGEST, _DEEPEST, _MOST_BARS = 300, 8, 12
_MOST_DIGITS = 10_000  # of a power or factorial; 2^{2005} has 604
_MOST_EXPANDED = 60  # names in a bracket times its exponent, summed
_MOST_SUMS = 2
_LARGEST_LOG = 9.0  # larger exponents are rejected for any base

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
    """Return whether parsing or evaluating a text may take seconds."""
    return (
        len(text) > _LONGEST
        or text.count("|") > _MOST_BARS
        or len(_SUM.findall(text)) > _MOST_SUMS
        or _MANY_TERMS.search(text) is not None
        or _LARGE_BINOMIAL.search(text) is not None
        or _is_large(text)
    )


@dataclass
class _Term:
    """A number, name or bracket: log10 of its estimated value and its number of names.

    A bracket sums its closed chains; the open chain is a base and its exponents."""

    log: float = 0.0
    names: int = 0
    is_bracket: bool = False
    expanded: float = 0.0
    chain: list["_Term"] = field(default_factory=list)
    is_exponent: bool = False  # whether ^ precedes the next term

    def add(self, term: "_Term") -> None:
        if not self.is_exponent:
            self.close_chain()
        self.chain.append(term)
        self.is_exponent = False

    def close_chain(self) -> None:
        """Close the open chain, evaluated from the right."""
        log, names = 0.0, 0
        for k, term in enumerate(reversed(self.chain)):
            exponent = 10 ** min(log, _LARGEST_LOG) if k else 1.0
            self.expanded += term.names * exponent if k and term.is_bracket else 0.0
            log, names = term.log * exponent, names + term.names
        self.chain.clear()
        self.log += log
        self.names += names


def _is_large(text: str) -> bool:
    stack = [_Term(is_bracket=True)]
    for token in _TOKEN.finditer(text):
        kind, inner = token.lastgroup, stack[-1]
        if kind == "open":
            stack.append(_Term(is_bracket=True))
        elif kind == "close" and len(stack) > 1:
            inner.close_chain()
            stack.pop()
            stack[-1].expanded += inner.expanded
            stack[-1].add(inner)
        elif kind == "power":
            inner.is_exponent = True
        elif kind == "factorial" and inner.chain:
            value = 10 ** min(inner.chain[-1].log, _LARGEST_LOG)
            inner.chain[-1].log = value * log10(max(value, 1))
        elif kind == "number":
            inner.add(_Term(log10(max(int(token[0]), 1))))
        elif kind == "name":  # a variable counts as half a digit
            inner.add(_Term(0.5, 0 if token[0].startswith("\\") else 1))
        if len(stack) - 1 > _DEEPEST:
            return True
    for bracket in stack:
        bracket.close_chain()
    expanded = sum(bracket.expanded for bracket in stack)
    return expanded > _MOST_EXPANDED or any(bracket.log > _MOST_DIGITS for bracket in stack)
