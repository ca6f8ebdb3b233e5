r"""Equality of two answers. docs/tasks.md lists the rules."""

import re
from collections.abc import Callable
from fractions import Fraction

from weft_rl.rewards.answers.labels import based
from weft_rl.rewards.answers.normalize import normalized
from weft_rl.rewards.answers.shapes import NOTHING, Answer, Relation, shape

_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_RATIONAL = re.compile(
    rf"([-+]?) ?(?:({_NUMBER})(?: ?/ ?({_NUMBER}))?"
    rf"|\\frac\{{([-+]?)({_NUMBER})\}}\{{({_NUMBER})\}})"
    r"(?: ?\\cdot ?10\^\{([-+]?[0-9]{1,3})\})?"
)
_LONGEST_NUMBER = 300
_TEXT = re.compile(r"\\text\{[^{}]*\}")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")
# Collections with an order; the others are compared as multisets.
_ORDERED = ("tuple", "row", "matrix")

# Compares two texts that are neither identical nor both rational.
Leaf = Callable[[str, str, Relation], bool]


def same_value(right: str, given: str) -> bool:
    """Return whether two LaTeX answers are equal. Imports sympy; time is unbounded."""
    from weft_rl.rewards.answers.values import related

    return same_answer(normalized(right), normalized(given), related)


def same_answer(key: str, given: str, leaf: Leaf) -> bool:
    """Return whether a normalized answer matches the key; "5 m" has a unit unless the key has
    names."""
    has_variables = _VARIABLE.search(_TEXT.sub("", key)) is not None
    try:
        return _same(shape(key), shape(given, letters_are_units=not has_variables), leaf)
    except RecursionError:  # nested too deep for an answer
        return False


def compact(text: str) -> str:
    """Remove insignificant spaces."""
    return _SPACE.sub("", text)


def _same(key: Answer, given: Answer, leaf: Leaf) -> bool:
    if NOTHING in (key, given):
        return False
    if given.kind in ("named", "equation") and not _agrees(given):
        return False
    kinds = (key.kind, given.kind)
    if {*kinds} <= {"named", "equation"}:
        return _same_equations(key, given, leaf)
    if "inequality" in kinds:
        key, given = _as_inequality(key), _as_inequality(given)
    if key.kind == "named":
        return _same(key.parts[0], given, leaf)
    if given.kind == "named":
        return _same(key, given.parts[0], leaf)
    if given.kind == "equation":  # last side of "2^{10} = 1024"
        return _same(key, given.parts[1], leaf)
    if key.kind == given.kind == "value":
        return _same_values(key, given, leaf)
    if key.kind == given.kind == "inequality":
        return key.text == given.text and _is_multiple(key, given, leaf, "positive")
    return _same_collections(key, given, leaf)


def _as_inequality(bound: Answer) -> Answer:
    """Both sides of "x<3", which is parsed as an interval of x."""
    if bound.kind != "named" or bound.parts[0].kind != "interval":
        return bound
    name, interval = Answer("value", bound.text), bound.parts[0]
    (low, high), (has_low, has_high) = interval.parts, interval.closed
    if low.text == r"-\infty":
        return Answer("inequality", "<=" if has_high else "<", (name, high))
    if high.text == r"\infty":
        return Answer("inequality", "<=" if has_low else "<", (low, name))
    return bound


def _rational(text: str) -> Fraction | None:
    if len(text) > _LONGEST_NUMBER:
        return None
    while text[:1] == "(" and text.endswith(")") and text.find(")") == len(text) - 1:
        text = text[1:-1].strip()
    if text[:2] == "-(" and text.endswith(")") and text[2:3].isdecimal():
        text = f"-{text[2:-1]}"
    match = _RATIONAL.fullmatch(text)
    if match is None:
        return None
    sign, whole, below, inner, upper, lower, power = match.groups()
    value, divisor = Fraction(whole or upper), Fraction(below or lower or 1)
    if not divisor:
        return None
    value *= Fraction(10) ** int(power or 0) / divisor
    return -value if (sign == "-") != (inner == "-") else value


def _agrees(chain: Answer) -> bool:
    texts = [part.text for part in chain.parts if part.kind == "value" and not part.is_percent]
    return len({value for text in texts if (value := _rational(text)) is not None}) <= 1


def _same_equations(key: Answer, given: Answer, leaf: Leaf) -> bool:
    if key.kind == given.kind == "named":
        names = (key.text, given.text)
        is_same = key.text.lower() == given.text.lower()
        if not is_same and all("(" in name for name in names):  # f(x) and g(x)
            return False
        if is_same or any(name.startswith(r"\text") or len(name) > 3 for name in names):
            return _same(key.parts[0], given.parts[0], leaf)
    if any(part.kind != "value" for part in key.parts + given.parts):
        return False
    return _is_multiple(key, given, leaf, "multiple")


def _is_multiple(key: Answer, given: Answer, leaf: Leaf, relation: Relation) -> bool:
    return leaf(_difference(key), _difference(given), relation)


def _difference(sides: Answer) -> str:
    left, right = (sides, *sides.parts)[:2] if sides.kind == "named" else sides.parts[:2]
    return f"({left.text})-({right.text})"


def _same_values(key: Answer, given: Answer, leaf: Leaf) -> bool:
    if key.unit and given.unit and key.unit != given.unit:
        return False
    percent, other = (key, given) if key.is_percent else (given, key)
    value, plain = _rational(percent.text), _rational(other.text)
    if key.is_percent == given.is_percent or value is None:
        return _same_texts(key.text, given.text, leaf)
    if plain is None:
        return leaf(percent.text, other.text, "equal")
    # "50%" matches both 50 (a question about percent) and 1/2
    return plain in (value, value / 100)


def _same_texts(key: str, given: str, leaf: Leaf) -> bool:
    (key, key_base), (given, given_base) = based(key), based(given)
    if given_base != key_base and given_base is not None and (key_base or given_base != "10"):
        return False
    same_letters = compact(key) == compact(given)
    if key_base or given_base:
        return same_letters
    if same_letters or _same_but_for_case(compact(key), compact(given)):
        return True
    one, other = _rational(key), _rational(given)
    if one is not None and other is not None:
        return one == other
    if _are_words(key) or _are_words(given):
        return _spoken(key) == _spoken(given)
    return leaf(key, given, "equal")


def _same_but_for_case(key: str, given: str) -> bool:
    letters = {*_VARIABLE.findall(key)}
    is_ambiguous = "\\" in key or len({letter.lower() for letter in letters}) < len(letters)
    return key.lower() == given.lower() and not is_ambiguous


def _spoken(text: str) -> str:
    r"""Text of an answer that is only words; \text{(C)} and "C" give the letter."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip(" .!?()'\"")
    return " ".join(bare.lower().split())


def _are_words(text: str) -> bool:
    bare = _spoken(text)
    if not re.fullmatch(r"[a-z][a-z ,.'-]*", bare):
        return False
    return r"\text" in text or len(bare) == 1 or re.search(r"[a-z]{4}", bare) is not None


def _same_collections(key: Answer, given: Answer, leaf: Leaf) -> bool:
    kinds = {key.kind, given.kind}
    if kinds == {"value", "set"}:
        members = [answer.parts if answer.kind == "set" else (answer,) for answer in (key, given)]
        if {*map(len, members)} == {0, 1}:
            return r"\emptyset" in (part.text for part in members[0] + members[1])
        return _unordered(*members, leaf)
    if "interval" in kinds and kinds <= {"interval", "tuple"}:
        has_brackets = bool(key.text or given.text)
        return key.closed == given.closed and not has_brackets and _ordered(key, given, leaf)
    if kinds == {"list", "tuple"} or (key.kind == given.kind and key.kind in _ORDERED):
        return key.text == given.text and _ordered(key, given, leaf)
    if kinds <= {"list", "set"} or kinds <= {"union"}:
        return _unordered(key.parts, given.parts, leaf)
    return False


def _ordered(key: Answer, given: Answer, leaf: Leaf) -> bool:
    pairs = zip(key.parts, given.parts, strict=False)
    return len(key.parts) == len(given.parts) and all(_same(a, b, leaf) for a, b in pairs)


def _unordered(key: tuple[Answer, ...], given: tuple[Answer, ...], leaf: Leaf) -> bool:
    if len(key) != len(given):
        return False
    remaining = list(given)
    for part in key:
        equal = next((other for other in remaining if _same(part, other, leaf)), None)
        if equal is None:
            return False
        remaining.remove(equal)
    return True
