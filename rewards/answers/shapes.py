r"""Structure of a normalized answer: "x<3 or x\ge 5" is a union of two intervals of x."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from weft_rl.rewards.answers.labels import Unit, labeled

_MARK = re.compile(
    r"\\[{}]|\\(?:langle|rangle|lfloor|rfloor|lceil|rceil)(?![a-z])|\\(?:cup|pm|mp|le|ge|ne|in|approx)"
    r"(?![a-zA-Z])|\\text\{ ?(?:and|or) ?\}|\\text\{[^{}]*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
    r"|\\[A-Za-z]+|\\begin\{[^}]*\}|[()\[\]{},;=<>]"
)
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\langle": "\\rangle"}
_PAIRS |= {"\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_SEPARATORS = (",", ";", "and", "or", r"\text{and}", r"\text{or}")
_SIGNS = {"<": ("<", False), ">": (">", False), r"\le": ("<", True), r"\ge": (">", True)}
_RELATIONS = ("=", *_SIGNS, r"\ne", r"\in", r"\approx")
_MATRIX = re.compile(r"\[?\(?\\begin\{(v?)matrix\}(.*)\\end\{v?matrix\}\)?\]?", re.DOTALL)
_NAME = re.compile(
    r"(?:\\text\{[^{}]*\}|\\(?!frac|sqrt|binom|pm|cdot)[A-Za-z]+|[A-Za-z]|_\{[^{}]*\}"
    r"|'|[ (),]|\^\{-1\}|\|)+"
)
# Interval with outward brackets as open ends: "]a,b)".
_TURNED = re.compile(r"([\[\]])([^\[\](),]+),([^\[\](),]+)([\[\]])")
_ALL = re.compile(r"\\mathbb\{R\}|(?:all )?real numbers", re.IGNORECASE)
_INFINITE = re.compile(r"[-+]?\\infty")
# Relation of two formulas: equal values, or one a multiple (any factor, or a positive one).
Relation = Literal["equal", "multiple", "positive"]


@dataclass(frozen=True)
class Answer:
    """Kind and parts of an answer.

    value: `text` with `unit` and `is_percent`. list, set, tuple, row, matrix, union: `parts`.
    interval: two parts, `closed` per end. named: `text` names the first part. equation, inequality:
    both sides as parts, the sign as `text`. nothing: no answer."""

    kind: str
    text: str = ""
    parts: tuple["Answer", ...] = ()
    closed: tuple[bool, bool] = (False, False)
    unit: Unit = frozenset()
    is_percent: bool = False


NOTHING = Answer("nothing")
LOW, HIGH = Answer("value", r"-\infty"), Answer("value", r"\infty")


def shape(text: str, letters_are_units: bool = False) -> Answer:
    """Parse an answer; see labels.labeled for `letters_are_units`."""
    return _Shaper(letters_are_units).any(text)


@dataclass(frozen=True)
class _Shaper:
    letters_are_units: bool

    def any(self, text: str) -> Answer:
        text = text.strip()
        turned = _TURNED.fullmatch(text)
        if turned and (turned[1] == "]" or turned[4] == "["):
            low, high = map(self.value, turned.group(2, 3))
            return _interval(low, high, turned[1] == "[", turned[4] == "]")
        pieces, marks = _split(text, _SEPARATORS)
        if len(pieces) > 1 and not _is_wordy(text):
            parts = [q for p in pieces if p.strip() for q in _elements(self.any(p))]
            return _listed(parts, any("and" in mark for mark in marks))
        return self.one(text)

    def one(self, text: str) -> Answer:
        """Parse an answer without separators outside brackets."""
        if _ALL.fullmatch(text):
            return _interval(LOW, HIGH, False, False)
        pieces, marks = _split(text, _RELATIONS)
        if marks:
            return self.relation(pieces, marks)
        pieces, _ = _split(text, (r"\cup",))
        if len(pieces) > 1:
            parts = tuple(self.one(piece.strip()) for piece in pieces)
            if all(part.kind == "set" for part in parts):
                members = dict.fromkeys(member for part in parts for member in part.parts)
                return Answer("set", parts=tuple(members))
            return Answer("union", parts=parts)
        if len(_split(text, (r"\pm", r"\mp"))[0]) > 1:
            upper = text.replace(r"\pm", "+").replace(r"\mp", "-").removeprefix("+")
            lower = text.replace(r"\pm", "-").replace(r"\mp", "+")
            return Answer("list", parts=(self.one(upper), self.one(lower)))
        matrix = _MATRIX.fullmatch(text)
        if matrix and "\\begin" not in matrix[2]:
            rows = [row.split("&") for row in matrix[2].split("\\\\") if row.strip()]
            cells = (Answer("row", parts=tuple(map(self.any, row))) for row in rows)
            return Answer("matrix", matrix[1], tuple(cells))
        return self.bracketed(text) or self.value(text)

    def value(self, text: str) -> Answer:
        value, unit, is_percent = labeled(text, self.letters_are_units)
        if not value:
            return Answer("value", text) if unit else NOTHING
        bracket = _bracket(value)
        if bracket and bracket[0] == "(" and (unit or is_percent):
            value = bracket[1]
        return Answer("value", value, unit=unit, is_percent=is_percent)

    def bracketed(self, text: str) -> Answer | None:
        """Parse a tuple, interval, set or bracketed value; None for anything else."""
        bracket = _bracket(text)
        if bracket is None:
            return None
        left, inside, right = bracket
        parts = tuple(map(self.any, _split(inside, (",", ";"))[0]))
        if left + right == "\\{\\}":
            members = tuple(member for part in parts for member in _elements(part))
            return Answer("set", parts=members if inside else ())
        if len(parts) == 1:
            # brackets around one value are redundant unless it is a set or a final index
            return parts[0] if left + right in ("()", "[]") and parts[0].kind != "named" else None
        if left + right in ("()", "\\langle\\rangle"):
            return Answer("tuple", parts=parts)
        if len(parts) == 2 and left in "([" and right in ")]":
            return _interval(*parts, left == "[", right == "]")
        return Answer("tuple", left + right, parts) if left + right == "[]" else None

    def relation(self, pieces: list[str], marks: list[str]) -> Answer:
        """Parse equations, inequalities and their chains."""
        if r"\approx" in marks:  # the exact value precedes \approx, unless it is a name
            at = marks.index(r"\approx")
            if at == 0 and _is_name(pieces[0]):
                return Answer("named", _name(pieces[0]), (self.one(pieces[1].strip()),))
            return self.one(_chain(pieces[: at + 1], marks[:at]))
        sides = [piece.strip() for piece in pieces]
        if set(marks) <= {"=", r"\in"}:
            return self.equation(sides)
        if marks == [r"\ne"] and _is_name(sides[0]):
            point = self.any(sides[1])
            parts = (_interval(LOW, point, False, False), _interval(point, HIGH, False, False))
            return Answer("named", _name(sides[0]), (Answer("union", parts=parts),))
        if set(marks) <= set(_SIGNS):
            signs = [_SIGNS[mark] for mark in marks]
            if signs[0][0] == ">":  # order from smaller to larger
                sides, signs = sides[::-1], signs[::-1]
            if inequality := self.inequality(sides, signs):
                return inequality
        return Answer("value", _chain([piece.strip() for piece in pieces], marks))

    def equation(self, sides: list[str]) -> Answer:
        last = self.any(sides[-1])
        if not all(sides[1:]):
            return NOTHING
        if not sides[0]:
            return last
        middle = map(self.any, sides[1:-1])
        if _is_name(sides[0]):
            return Answer("named", _name(sides[0]), (last, *middle))
        return Answer("equation", "=", (self.any(sides[0]), last, *middle))

    def inequality(self, sides: list[str], signs: list[tuple[str, bool]]) -> Answer | None:
        """An interval of a name, or two sides; None for a longer chain."""
        named = [_is_name(side) for side in sides]
        if sum(named) == 1 and len({sign for sign, _ in signs}) == 1 and len(sides) <= 3:
            at = named.index(True)
            if len(sides) == 2 or at == 1:
                low = self.any(sides[at - 1]) if at else LOW
                high = self.any(sides[at + 1]) if at + 1 < len(sides) else HIGH
                closed = at > 0 and signs[at - 1][1], at < len(signs) and signs[at][1]
                return Answer("named", _name(sides[at]), (_interval(low, high, *closed),))
        if len(sides) != 2:
            return None
        return Answer("inequality", "<=" if signs[0][1] else "<", tuple(map(self.any, sides)))


def _split(text: str, separators: Collection[str]) -> tuple[list[str], list[str]]:
    pieces, marks, depth, start = [], [], 0, 0
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark in _PAIRS or mark.startswith("\\begin"):
            depth += 1
        elif mark in _PAIRS.values() or mark == "\\end":
            depth -= 1
        elif depth <= 0 and mark in separators:
            pieces.append(text[start : match.start()])
            marks.append(mark)
            start = match.end()
    return [*pieces, text[start:]], marks


def _bracket(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, content and closing bracket of a bracketed text."""
    first = _MARK.match(text)
    if first is None or first[0] not in ("(", "[", "\\{", "\\langle"):
        return None
    depth = 0
    for match in _MARK.finditer(text, first.end()):
        mark = match[0]
        if mark in _PAIRS and match.end() < len(text):
            depth += 1
        elif mark in _PAIRS.values():
            if depth == 0:
                inside = text[first.end() : match.start()]
                return (first[0], inside, mark) if match.end() == len(text) else None
            depth -= 1
    return None


def _interval(left: Answer, right: Answer, left_closed: bool, right_closed: bool) -> Answer:
    closed = (
        left_closed and not _INFINITE.fullmatch(left.text),
        right_closed and not _INFINITE.fullmatch(right.text),
    )
    return Answer("interval", parts=(left, right), closed=closed)


def _elements(part: Answer) -> tuple[Answer, ...]:
    return part.parts if part.kind == "list" else (part,)


def _listed(parts: list[Answer], has_and: bool) -> Answer:
    """Build a list; intervals of one name joined by "or" become a union."""
    if len(parts) < 2:
        return parts[0] if parts else NOTHING
    names = {p.text.lower() for p in parts if p.kind == "named"}
    bodies = tuple(p.parts[0] if p.kind == "named" else p for p in parts)
    if len(names) == 1 and not has_and and all(b.kind in ("interval", "union") for b in bodies):
        union = tuple(q for b in bodies for q in (b.parts if b.kind == "union" else (b,)))
        return Answer("named", names.pop(), (Answer("union", parts=union),))
    return Answer("list", parts=tuple(parts))


def _chain(sides: list[str], marks: list[str]) -> str:
    return "".join(side + mark for side, mark in zip(sides, [*marks, ""], strict=True))


def _is_name(text: str) -> bool:
    return bool(text.strip()) and _NAME.fullmatch(text.strip()) is not None and text != r"\infty"


def _name(text: str) -> str:
    return text.replace(" ", "").strip()


def _is_wordy(text: str) -> bool:
    return not re.search(r"[0-9=<>\\]", re.sub(r"\\text", "", text)) and bool(
        re.search(r"[A-Za-z]{3}", text.replace("and", "").replace("text", ""))
    )
