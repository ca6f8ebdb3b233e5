"""Exact evaluation without eval: integers, + - * /, parentheses, unary minus, LaTeX and Unicode."""

import re
from collections.abc import Sequence
from fractions import Fraction

# Bounds on time, memory and stack, far above a Countdown expression.
_LONGEST, _DEEPEST, _MOST_DIGITS = 256, 32, 9

_SPELLINGS = [
    # multiplication; division; minus and en dash
    (re.compile("\\\\(?:times|cdot|ast)|[\u00d7\u00b7\u2219\u22c5\u2217]"), "*"),
    (re.compile("\\\\div|[\u00f7\u2215]"), "/"),
    (re.compile("[\u2212\u2013]"), "-"),
    # sized parentheses, thin spaces, math delimiters
    (re.compile(r"\\left|\\right|\\[,;!()\[\] ]|\$"), ""),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
]
_TOKEN = re.compile(r"\s*([0-9]+|\\frac|[-+*/(){}])")

Value = int | Fraction  # Fraction only where needed: integers are ten times faster


class NotAnExpression(ValueError):
    """The text is not a supported expression."""


def evaluate(text: str) -> tuple[Value, list[int]]:
    """Return the exact value of an expression and its integers in order. Raises NotAnExpression."""
    if len(text) > _LONGEST:
        raise NotAnExpression(f"longer than {_LONGEST} characters")
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotAnExpression(f"unexpected {text[at]!r}")
        tokens.append(match[1])
        at = match.end()
    parser = _Parser(tokens)
    value = parser.sum(0)
    if parser.at != len(tokens):
        raise NotAnExpression(f"unexpected {tokens[parser.at]!r}")
    return value, parser.numbers


class _Parser:
    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens, self.at = tokens, 0
        self.numbers: list[int] = []

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise NotAnExpression(f"expected {wanted or 'a number'}, got {token or 'the end'}")
        self.at += 1
        return token

    def sum(self, depth: int) -> Value:
        value = self.product(depth)
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            right = self.product(depth)
            value = value + right if sign > 0 else value - right
        return value

    def product(self, depth: int) -> Value:
        value = self.atom(depth)
        while self.peek() in ("*", "/"):
            operator, right = self.take(), self.atom(depth)
            value = value * right if operator == "*" else _divide(value, right)
        return value

    def atom(self, depth: int) -> Value:
        if depth > _DEEPEST:
            raise NotAnExpression(f"nested deeper than {_DEEPEST}")
        token = self.take()
        if token == "-":
            return -self.atom(depth + 1)
        if token == "\\frac":
            upper, lower = (self.group("{", "}", depth) for _ in range(2))
            return _divide(upper, lower)
        if token == "(":
            self.at -= 1
            return self.group("(", ")", depth)
        if not token.isdecimal() or len(token) > _MOST_DIGITS:
            raise NotAnExpression(f"expected a number, got {token[:20]!r}")
        self.numbers.append(int(token))
        return self.numbers[-1]

    def group(self, left: str, right: str, depth: int) -> Value:
        self.take(left)
        value = self.sum(depth + 1)
        self.take(right)
        return value


def _divide(left: Value, right: Value) -> Value:
    if right == 0:
        raise NotAnExpression("division by zero")
    quotient = Fraction(left, right)
    return quotient.numerator if quotient.denominator == 1 else quotient
