r"""How a final answer is built, read from final_answer's spelling: lists, tuples, intervals, sets,
matrices, equations, inequalities; their elements are left as text.

Example: "x<3 or x\ge 5" is the union of (-\infty,3) and [5,\infty), of x."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from weft_rl.rewards.answers.labels import labeled

_OPENING, _CLOSING = "([{", ")]}"
# brackets and separators, which a command's letters are not to be searched for
_MARK = re.compile(
    r"\\[{}]|\\(?:langle|rangle|lfloor|rfloor|lceil|rceil)(?![a-z])|\\(?:cup|pm|mp|le|ge|ne|in|approx)"
    r"(?![a-zA-Z])|\\text\{ ?(?:and|or) ?\}|\\text\{[^{}]*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
    r"|\\[A-Za-z]+|\\begin\{[^}]*\}|[()\[\]{},;=<>]"
)
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\langle": "\\rangle"}
_PAIRS |= {"\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_WORD_SEPARATORS = ("and", "or", r"\text{and}", r"\text{or}")
_SIGNS = {"<": ("<", False), ">": (">", False), r"\le": ("<", True), r"\ge": (">", True)}
_MATRIX = re.compile(r"\[?\(?\\begin\{(v?)matrix\}(.*)\\end\{v?matrix\}\)?\]?", re.DOTALL)
_NAME = re.compile(
    r"(?:\\text\{[^{}]*\}|\\(?!frac|sqrt|binom|pm|cdot)[A-Za-z]+|[A-Za-z]|_\{[^{}]*\}"
    r"|'|[ (),]|\^\{-1\}|\|)+"
)
# an interval with its open ends as outward brackets, or "]a,b)"
_TURNED = re.compile(r"([\[\]])([^\[\](),]+),([^\[\](),]+)([\[\]])")
_ALL = re.compile(r"\\mathbb\{R\}|(?:all )?real numbers", re.IGNORECASE)
_INFINITE = re.compile(r"[-+]?\\infty")


@dataclass(frozen=True)
class Answer:
    r"""An answer's kind and parts.

    value: `text` with `unit` and `is_percent`; list, set, tuple, union, matrix: `parts`; interval:
    two parts, `closed` for each end; named: `text` is the name, one part; equation and inequality:
    two parts and the sign in `text`; nothing: what states no answer."""

    kind: str
    text: str = ""
    parts: tuple["Answer", ...] = ()
    closed: tuple[bool, bool] = (False, False)
    unit: frozenset[tuple[str, int]] = field(default=frozenset())
    is_percent: bool = False


NOTHING = Answer("nothing")


def answer(text: str, letters_are_units: bool = False) -> Answer:
    """How an answer is built; `letters_are_units` as for math_labels.labeled."""
    text = text.strip()
    turned = _TURNED.fullmatch(text)
    if turned and (turned[1] == "]" or turned[4] == "["):
        ends = _value(turned[2], letters_are_units), _value(turned[3], letters_are_units)
        return _interval(*ends, turned[1] == "[", turned[4] == "]")
    pieces, marks = _split(text, lambda mark: mark in (",", ";") or mark in _WORD_SEPARATORS)
    if len(pieces) > 1 and not _is_wordy(text):
        found = [
            p for piece in pieces if piece.strip() for p in _flat(answer(piece, letters_are_units))
        ]
        return _listed(found, marks)
    return _one(text, letters_are_units)


def _one(text: str, units: bool) -> Answer:
    """An answer without separators outside of brackets."""
    if _ALL.fullmatch(text):
        ends = Answer("value", r"-\infty"), Answer("value", r"\infty")
        return Answer("interval", parts=ends)
    pieces, marks = _split(text, lambda mark: mark in _RELATIONS)
    if marks:
        return _related(pieces, marks, units)
    pieces, _ = _split(text, lambda mark: mark == r"\cup")
    if len(pieces) > 1:
        parts = tuple(_one(piece.strip(), units) for piece in pieces)
        if all(part.kind == "set" for part in parts):
            return Answer(
                "set", parts=tuple(dict.fromkeys(p for part in parts for p in part.parts))
            )
        return Answer("union", parts=parts)
    if len(_split(text, lambda mark: mark in (r"\pm", r"\mp"))[0]) > 1:
        return _both_signs(text, units)
    matrix = _MATRIX.fullmatch(text)
    if matrix and matrix[2].count("\\begin") == 0:
        rows = [row.split("&") for row in matrix[2].split("\\\\") if row.strip()]
        cells = tuple(Answer("row", parts=tuple(answer(c, units) for c in row)) for row in rows)
        return Answer("matrix", matrix[1], cells)
    return _bracketed(text, units) or _value(text, units)


_RELATIONS = ("=", *_SIGNS, r"\ne", r"\in", r"\approx")


def _value(text: str, units: bool) -> Answer:
    label = labeled(text, units)
    if not label.value and not label.unit:
        return NOTHING
    if not label.value:
        return Answer("value", text)
    inner = _inside(label.value)
    if inner is not None and inner[0] == "(" and (label.unit or label.is_percent):
        return Answer("value", inner[1], (), (False, False), label.unit, label.is_percent)
    return Answer("value", label.value, (), (False, False), label.unit, label.is_percent)


def _split(text: str, is_wanted: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The pieces between marks outside of brackets, and these marks."""
    pieces, marks, depth, start = [], [], 0, 0
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark in _PAIRS or mark.startswith("\\begin"):
            depth += 1
        elif mark in _PAIRS.values() or mark == "\\end":
            depth -= 1
        elif depth <= 0 and is_wanted(mark):
            pieces.append(text[start : match.start()])
            marks.append(mark)
            start = match.end()
    return [*pieces, text[start:]], marks


def _inside(text: str) -> tuple[str, str, str] | None:
    """The bracket that a text begins with, what it holds, and its closing one that ends it."""
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
                ends = match.end() == len(text)
                return (first[0], text[first.end() : match.start()], mark) if ends else None
            depth -= 1
    return None


def _bracketed(text: str, units: bool) -> Answer | None:
    """A tuple, interval, set, or what stands in brackets alone; None for anything else."""
    found = _inside(text)
    if found is None:
        return None
    left, inside, right = found
    pieces, _ = _split(inside, lambda mark: mark in (",", ";"))
    parts = tuple(answer(piece, units) for piece in pieces)
    if left == "\\{" and right == "\\}":
        return Answer(
            "set", parts=tuple(p for part in parts for p in _flat(part)) if inside else ()
        )
    if len(parts) == 1:
        # brackets around one value change nothing, but an index at the end or a set's do
        alone = left + right in ("()", "[]") and parts[0].kind != "named"
        return parts[0] if alone else None
    if left + right in ("()", "\\langle\\rangle"):
        return Answer("tuple", parts=parts)
    if len(parts) == 2 and left in "([" and right in ")]":
        return _interval(parts[0], parts[1], left == "[", right == "]")
    return Answer("tuple", left + right, parts) if left + right == "[]" else None


def _interval(left: Answer, right: Answer, left_closed: bool, right_closed: bool) -> Answer:
    closed = (
        left_closed and not _INFINITE.fullmatch(left.text),
        right_closed and not _INFINITE.fullmatch(right.text),
    )
    return Answer("interval", parts=(left, right), closed=closed)


def _both_signs(text: str, units: bool) -> Answer:
    """The two values of a text with a plus-minus sign."""
    first = _one(text.replace(r"\pm", "+").replace(r"\mp", "-").removeprefix("+"), units)
    second = _one(text.replace(r"\pm", "-").replace(r"\mp", "+"), units)
    return Answer("list", parts=(first, second))


def _flat(part: Answer) -> tuple[Answer, ...]:
    return part.parts if part.kind == "list" else (part,)


def _listed(parts: list[Answer], marks: list[str]) -> Answer:
    """The parts as a list; intervals between "or" are a union."""
    if not parts:
        return NOTHING
    if len(parts) == 1:
        return parts[0]
    names = {p.text.lower() for p in parts if p.kind == "named"}
    bodies = tuple(p.parts[0] if p.kind == "named" else p for p in parts)
    if len(names) == 1 and all(b.kind in ("interval", "union") for b in bodies):
        union = tuple(q for b in bodies for q in (b.parts if b.kind == "union" else (b,)))
        if not any("and" in mark for mark in marks):
            return Answer("named", names.pop(), (Answer("union", parts=union),))
    return Answer("list", parts=tuple(parts))


def _related(pieces: list[str], marks: list[str], units: bool) -> Answer:
    """Equations, inequalities and their chains."""
    if r"\approx" in marks:  # what stands before it is exact, but for a name
        at = marks.index(r"\approx")
        if at == 0 and _is_name(pieces[0]):
            return Answer("named", _name(pieces[0]), (_one(pieces[1].strip(), units),))
        return _one("".join(p + m for p, m in zip(pieces, [*marks[:at], ""], strict=False)), units)
    sides = [piece.strip() for piece in pieces]
    if set(marks) <= {"=", r"\in"}:
        return _equation(sides, units)
    if marks == [r"\ne"] and _is_name(sides[0]):
        point = answer(sides[1], units)
        low, high = Answer("value", r"-\infty"), Answer("value", r"\infty")
        parts = _interval(low, point, False, False), _interval(point, high, False, False)
        return Answer("named", _name(sides[0]), (Answer("union", parts=parts),))
    if not set(marks) <= set(_SIGNS):
        return Answer("value", "".join(p + m for p, m in zip(sides, [*marks, ""], strict=True)))
    return _inequality(sides, marks, units)


def _equation(sides: list[str], units: bool) -> Answer:
    body = answer(sides[-1], units)
    if not all(sides[1:]):
        return NOTHING
    if not sides[0]:
        return body
    if _is_name(sides[0]):
        return Answer("named", _name(sides[0]), (body, *(answer(s, units) for s in sides[1:-1])))
    parts = tuple(answer(side, units) for side in sides)
    return Answer("equation", "=", (parts[0], parts[-1], *parts[1:-1]))


def _inequality(sides: list[str], marks: list[str], units: bool) -> Answer:
    signs = [_SIGNS[mark] for mark in marks]
    named = [_is_name(side) for side in sides]
    if sum(named) == 1 and len({sign for sign, _ in signs}) == 1 and len(sides) <= 3:
        at = named.index(True)
        if signs[0][0] == ">":  # from the smaller to the larger side
            sides, signs, at = sides[::-1], signs[::-1], len(sides) - 1 - at
        if len(sides) == 2 or at == 1:
            low = answer(sides[at - 1], units) if at else Answer("value", r"-\infty")
            top = (
                answer(sides[at + 1], units) if at + 1 < len(sides) else Answer("value", r"\infty")
            )
            closed = (at > 0 and signs[at - 1][1], at < len(signs) and signs[at][1])
            name = _name(sides[at])
            return Answer("named", name, (_interval(low, top, *closed),))
    if len(sides) != 2:
        return Answer("value", "".join(p + m for p, m in zip(sides, [*marks, ""], strict=True)))
    if signs[0][0] == ">":
        sides = sides[::-1]
    parts = tuple(answer(side, units) for side in sides)
    return Answer("inequality", "<=" if signs[0][1] else "<", parts)


def _is_name(text: str) -> bool:
    return bool(text.strip()) and _NAME.fullmatch(text.strip()) is not None and text != r"\infty"


def _name(text: str) -> str:
    return text.replace(" ", "").strip()


def _is_wordy(text: str) -> bool:
    r"""Whether a text is words alone, such as \text{odd and even}."""
    return not re.search(r"[0-9=<>\\]", re.sub(r"\\text", "", text)) and bool(
        re.search(r"[A-Za-z]{3}", text.replace("and", "").replace("text", ""))
    )
