r"""What an answer states beside its value: a unit, a percent sign, the base of a number.

Example: 7\text{ m} is not 7\text{ cm} nor 7\text{ m}^2; a unit left out contradicts nothing."""

import re
from collections import Counter
from typing import NamedTuple

# Units that are told apart, each with its spellings; what is not listed contradicts nothing.
_UNITS: dict[str, str] = {
    spelling: names.split()[0]
    for names in (
        "mm millimeter millimeters millimetre millimetres",
        "cm centimeter centimeters centimetre centimetres cms",
        "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres kms",
        "in inch inches",
        "ft foot feet",
        "yd yard yards yds",
        "mi mile miles",
        "acre acres",
        "mg milligram milligrams",
        "g gram grams",
        "kg kilogram kilograms kgs",
        "oz ounce ounces",
        "lb lbs pound pounds",
        "ton tons",
        "ml milliliter milliliters millilitre millilitres",
        "l liter liters litre litres",
        "gal gallon gallons",
        "qt quart quarts",
        "pt pint pints",
        "cup cups",
        "s sec secs second seconds",
        "min mins minute minutes",
        "h hr hrs hour hours",
        "day days",
        "week weeks",
        "month months",
        "year years yr yrs",
        "cent cents",
        "dollar dollars usd",
        "euro euros",
        "gbp",
        "yen",
        "degree degrees deg",
        "rad radian radians",
        "mph",
        "kph kmh",
        "w watt watts",
        "j joule joules",
        "n newton newtons",
    )
    for spelling in names.split()
}
_RAISING = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_RAISED = {"squared": 2, "cubed": 3}
_RATES = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}}

_EXPONENT = r"(?:\^\{-?[0-9]\}|(?<=[A-Za-z])[23])"
_UNIT_WORD = r"(?:\\text\{[^{}]*\}|[A-Za-z]+\.?)"
_TAIL = re.compile(rf" ?{_UNIT_WORD}{_EXPONENT}?(?:[ ,./()]*{_UNIT_WORD}{_EXPONENT}?|[ .()])*")
_START = re.compile(r"\\text\{| ?(?<![A-Za-z\\{])[A-Za-z]+")
_DEGREES = re.compile(r"\^\{\\circ\}(?: ?\\text\{([CF])\}| ?([CF])(?![A-Za-z]))?$")
_PIECE = re.compile(rf"[A-Za-z]+|{_EXPONENT}|/")
_BASE = re.compile(r"\(?([0-9][0-9A-Z]*)\)?_\{(?:\(|\\text\{)?([0-9]+|[a-z]+)[)}]?\}")
_NUMBERS = "two three four five six seven eight nine ten eleven twelve"
_BASES = {name: str(base) for base, name in enumerate(_NUMBERS.split(), 2)} | {"sixteen": "16"}
_IN_BASE = re.compile(r" ?(?:\\text\{)?(?:in )?base ?([0-9]+)\}?$")

Unit = frozenset[tuple[str, int]]


class Labeled(NamedTuple):
    """A value's text and what stands beside it."""

    value: str
    unit: Unit
    is_percent: bool


def labeled(text: str, letters_are_units: bool) -> Labeled:
    r"""The parts of an answer in final_answer's spelling.

    letters_are_units: whether "5 m" in a formula's letters has a unit, not a variable m."""
    unit: Counter[str] = Counter()
    if r"\$" in text:
        unit["dollar"] = 1
        text = text.replace(r"\$", "")
    degrees = _DEGREES.search(text)
    if degrees:
        unit[f"degree{degrees[1] or degrees[2] or ''}"] = 1
        text = text[: degrees.start()]
    at = _tail(text, letters_are_units)
    if at is not None:
        unit.update(_unit(text[at:]))
        text = text[:at]
    is_percent = text.endswith("%")
    text = text.removesuffix("%").strip()
    return Labeled(
        text, frozenset((name, power) for name, power in unit.items() if power), is_percent
    )


def _tail(text: str, letters_are_units: bool) -> int | None:
    """Where the words behind a value begin."""
    if not text.startswith(r"\text"):
        for start in _START.finditer(text, 1):
            if text[0].isalpha() and start[0][0] != "\\":
                continue  # a product of variables
            if _TAIL.fullmatch(text, start.start()) and _is_word(start[0], letters_are_units):
                return start.start()
    return None


def _is_word(text: str, letters_are_units: bool) -> bool:
    """Whether letters are a word rather than a product of variables."""
    word = text.strip().lower()
    known = word in _UNITS or word in _RAISING
    if text.startswith("\\") or (known and (letters_are_units or len(word) > 2)):
        return True
    return letters_are_units and (len(word) > 3 or (text[0] == " " and len(word) > 1))


def _unit(text: str) -> Counter[str]:
    """The listed units that words name, with their powers."""
    text = text.replace(r"\text", " ").replace("(s)", "s").replace("{", " {").replace("^ {", "^{")
    found: Counter[str] = Counter()
    power, sign, last = 1, 1, ""
    pieces = _PIECE.findall(text.lower())
    for i, piece in enumerate(pieces):
        if piece in ("/", "per"):
            sign = -1
        elif piece in _RAISING:
            power = _RAISING[piece]
        elif piece[0] in "^23" or piece in _RAISED:
            if last:
                found[last] *= _RAISED.get(piece) or int(piece.strip("^{}"))
        # "5 in" is a length, "5 in all" is not
        elif piece in _UNITS and not (piece == "in" and pieces[i + 1 : i + 2] and found):
            if piece == "in" and pieces[i + 1 : i + 2] and pieces[i + 1][0].isalpha():
                continue
            last = _UNITS[piece]
            for name, times in _RATES.get(last, {last: 1}).items():
                found[name] += sign * power * times
            power = 1
        else:
            last = ""
    return found


def based(text: str) -> tuple[str, str | None]:
    """The digits of a number and the base below them, None without one."""
    spoken = _IN_BASE.search(text)
    if spoken:
        return text[: spoken.start()].strip(), spoken[1]
    match = _BASE.fullmatch(text) if "_" in text else None
    if match is None:
        return text, None
    return match[1], _BASES.get(match[2], match[2])
