r"""When two answers are equal; docs/tasks.md has the rules as a table."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

from weft_rl.rewards.answers.labels import based
from weft_rl.rewards.answers.shapes import NOTHING, Answer, answer

_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_RATIONAL = re.compile(
    rf"([-+]?) ?(?:({_NUMBER})(?: ?/ ?({_NUMBER}))?"
    rf"|\\frac\{{([-+]?)({_NUMBER})\}}\{{({_NUMBER})\}})"
    r"(?: ?\\cdot ?10\^\{([-+]?[0-9]{1,3})\})?"
)
_LONGEST_NUMBER = 300
_TEXT = re.compile(r"\\text\{[^{}]*\}")
_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")

# What is asked of two texts: the same value, or for the difference of two equations' sides that
# one is a multiple of the other, by any number or by a positive one.
Relation = Literal["equal", "multiple", "positive"]
Leaf = Callable[[str, str, Relation], bool]


def read(key: str, given: str) -> tuple[Answer, Answer]:
    """The right answer and the given one, both in final_answer's spelling.

    "5 m" of the given one has a unit unless the right one has variables."""
    variables = re.search(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", re.sub(_TEXT, "", key))
    return answer(key), answer(given, letters_are_units=variables is None)


def same(key: Answer, given: Answer, leaf: Leaf) -> bool:
    """Whether an answer is the right one. `leaf`: for two texts that are neither the same text nor
    both rational numbers."""
    if NOTHING in (key, given):
        return False
    if given.kind == "named" and not _agrees(given):
        return False
    if given.kind == "equation" and not _agrees(given):
        return False
    if {key.kind, given.kind} <= {"named", "equation"}:
        return _equations(key, given, leaf)
    if "inequality" in (key.kind, given.kind):
        key, given = _side_by_side(key), _side_by_side(given)
    if key.kind == "named":
        return same(key.parts[0], given, leaf)
    if given.kind == "named":
        return same(key, given.parts[0], leaf)
    if given.kind == "equation":  # the last side of "2^{10} = 1024"
        return same(key, given.parts[1], leaf)
    if key.kind == given.kind == "value":
        return _values(key, given, leaf)
    if key.kind == given.kind == "inequality":
        return key.text == given.text and _multiples(key, given, leaf, "positive")
    return _collections(key, given, leaf)


def _side_by_side(bound: Answer) -> Answer:
    """Of "x<3", which is read as an interval of x, its two sides."""
    if bound.kind != "named" or bound.parts[0].kind != "interval":
        return bound
    name, (low, top), closed = (
        Answer("value", bound.text),
        bound.parts[0].parts,
        bound.parts[0].closed,
    )
    if low.text == r"-\infty":
        return Answer("inequality", "<=" if closed[1] else "<", (name, top))
    if top.text == r"\infty":
        return Answer("inequality", "<=" if closed[0] else "<", (low, name))
    return bound


def rational(text: str) -> Fraction | None:
    """The value of an integer, decimal, fraction or a number in scientific notation, exactly."""
    if len(text) > _LONGEST_NUMBER:
        return None
    match = _RATIONAL.fullmatch(_unbracketed(text))
    if match is None:
        return None
    sign, whole, below, inner, upper, lower, power = match.groups()
    value = Fraction(whole or upper)
    if below or lower:
        if not Fraction(below or lower):
            return None
        value /= Fraction(below or lower)
    if power:
        value *= Fraction(10) ** int(power)
    return -value if (sign == "-") != (inner == "-") else value


def compact(text: str) -> str:
    """Without the blanks that keep nothing apart."""
    return _SPACE.sub("", text)


def _unbracketed(text: str) -> str:
    while text[:1] == "(" and text.endswith(")") and text.find(")") == len(text) - 1:
        text = text[1:-1].strip()
    if text[:2] == "-(" and text.endswith(")") and text[2:3].isdecimal():
        return f"-{text[2:-1]}"
    return text


def _agrees(chain: Answer) -> bool:
    """Whether the sides of "a = b = c" that are numbers are equal."""
    texts = [part.text for part in chain.parts if part.kind == "value" and not part.is_percent]
    numbers = {value for text in texts if (value := rational(text)) is not None}
    return len(numbers) <= 1


def _equations(key: Answer, given: Answer, leaf: Leaf) -> bool:
    if key.kind == given.kind == "named":
        if key.text.lower() == given.text.lower():
            return same(key.parts[0], given.parts[0], leaf)
        if "(" in key.text and "(" in given.text:  # of f(x) and g(x)
            return False
        if any(name.startswith(r"\text") or len(name) > 3 for name in (key.text, given.text)):
            return same(key.parts[0], given.parts[0], leaf)
    if any(part.kind not in ("value",) for a in (key, given) for part in a.parts):
        return False
    return _multiples(key, given, leaf, "multiple")


def _multiples(key: Answer, given: Answer, leaf: Leaf, how: Relation) -> bool:
    """Whether one equation is the other a multiple of the other one."""
    texts = [
        f"({left})-({right})"
        for a in (key, given)
        for left, right in [
            [p.text for p in a.parts[:2]] if a.kind != "named" else (a.text, a.parts[0].text)
        ]
    ]
    return leaf(texts[0], texts[1], how)


def _values(key: Answer, given: Answer, leaf: Leaf) -> bool:
    if key.unit and given.unit and key.unit != given.unit:
        return False
    if key.is_percent == given.is_percent:
        return _same_text_or_value(key.text, given.text, leaf)
    percent, other = (key, given) if key.is_percent else (given, key)
    value, plain = rational(percent.text), rational(other.text)
    if value is None:
        return _same_text_or_value(key.text, given.text, leaf)
    # "50%" is 50 of what is asked in percent, and the number 1/2
    return plain in (value, value / 100) or (
        plain is None and leaf(percent.text, other.text, "equal")
    )


def _same_text_or_value(key: str, given: str, leaf: Leaf) -> bool:
    (key, key_base), (given, given_base) = based(key), based(given)
    if given_base != key_base and given_base is not None and (key_base or given_base != "10"):
        return False
    if key_base or given_base:
        return compact(key) == compact(given)
    if compact(key) == compact(given) or _same_but_for_case(compact(key), compact(given)):
        return True
    one, other = rational(key), rational(given)
    if one is not None and other is not None:
        return one == other
    if _are_words(key) or _are_words(given):
        return _spoken(key) == _spoken(given)
    return leaf(key, given, "equal")


def _same_but_for_case(key: str, given: str) -> bool:
    """Whether only the case of letters differs, and tells no two variables apart."""
    if key.lower() != given.lower():
        return False
    letters = set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", key))
    return "\\" not in key and len({letter.lower() for letter in letters}) == len(letters)


def _spoken(text: str) -> str:
    r"""The words of an answer that is nothing else; of \text{(C)} and "C" the letter."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip(" .!?()'\"")
    return " ".join(bare.lower().split())


def _are_words(text: str) -> bool:
    """Whether an answer is words or one letter rather than a product of variables."""
    bare = _spoken(text)
    if not re.fullmatch(r"[a-z][a-z ,.'-]*", bare):
        return False
    return r"\text" in text or len(bare) == 1 or re.search(r"[a-z]{4}", bare) is not None


def _collections(key: Answer, given: Answer, leaf: Leaf) -> bool:
    kinds = (key.kind, given.kind)
    if kinds in (("value", "set"), ("set", "value")):
        key, given = ((a if a.kind == "set" else Answer("set", parts=(a,))) for a in (key, given))
        if {len(key.parts), len(given.parts)} == {0, 1}:
            return r"\emptyset" in (p.text for a in (key, given) for p in a.parts)
        return _unordered(key, given, leaf)
    if "interval" in kinds and set(kinds) <= {"interval", "tuple"}:
        return (
            key.closed == given.closed and not key.text + given.text and _ordered(key, given, leaf)
        )
    if kinds in (("list", "tuple"), ("tuple", "list")) or kinds[0] == kinds[1] in (
        "tuple",
        "row",
        "matrix",
    ):
        return key.text == given.text and _ordered(key, given, leaf)
    if set(kinds) <= {"list", "set"} or set(kinds) <= {"union"}:
        return _unordered(key, given, leaf)
    return False


def _ordered(key: Answer, given: Answer, leaf: Leaf) -> bool:
    pairs = zip(key.parts, given.parts, strict=False)
    return len(key.parts) == len(given.parts) and all(same(a, b, leaf) for a, b in pairs)


def _unordered(key: Answer, given: Answer, leaf: Leaf) -> bool:
    if len(key.parts) != len(given.parts):
        return False
    rest = list(given.parts)
    for part in key.parts:
        found = next((other for other in rest if same(part, other, leaf)), None)
        if found is None:
            return False
        rest.remove(found)
    return True
