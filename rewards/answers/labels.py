r"""Labels of an answer: unit, percent sign, number base; a missing unit matches any unit."""

import re
from collections import Counter
from typing import NamedTuple

# Units that must match, each with its spellings; unlisted units are ignored.
_TABLE = """
    mm millimeter millimetre; cm centimeter centimetre; m meter metre; km kilometer kilometre;
    in inch inches; ft foot feet; yd yard; mi mile; acre; mg milligram; g gram; kg kilogram;
    oz ounce; lb pound; ton; ml milliliter millilitre; l liter litre; gal gallon; qt quart; pt pint;
    cup; s sec second; min minute; h hr hour; day; week; month; year yr; cent; dollar usd; euro;
    gbp; yen; degree deg; rad radian; mph; kph kmh; w watt; j joule; n newton
"""
_UNITS = {
    spelling: unit.split()[0]
    for unit in _TABLE.split(";")
    for name in unit.split()
    for spelling in ((name, f"{name}s") if len(name) > 1 else (name,))
}
_RAISING = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_RAISED = {"squared": 2, "cubed": 3}
_RATES = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}}

_EXPONENT = r"(?:\^\{-?[0-9]\}|(?<=[A-Za-z])[23])"
_WORD = rf"(?:\\text\{{[^{{}}]*\}}|[A-Za-z]+\.?){_EXPONENT}?"
_FIRST_WORD, _NEXT_WORD = re.compile(rf" ?{_WORD}"), re.compile(rf"[ ,./()]*{_WORD}")
_LAST_SIGNS = re.compile(r"[ .()]*")
_START = re.compile(r"\\text\{| ?(?<![A-Za-z\\{])[A-Za-z]+")
_DEGREES = re.compile(r"\^\{\\circ\}(?: ?\\text\{([CF])\}| ?([CF])(?![A-Za-z]))?$")
_PIECE = re.compile(rf"[A-Za-z]+|{_EXPONENT}|/")
_BASE = re.compile(r"\(?([0-9][0-9A-Z]*)\)?_\{(?:\(|\\text\{)?([0-9]+|[a-z]+)[)}]?\}")
_NUMBERS = "two three four five six seven eight nine ten eleven twelve"
_BASES = {name: str(base) for base, name in enumerate(_NUMBERS.split(), 2)} | {"sixteen": "16"}
_IN_BASE = re.compile(r" ?(?:\\text\{)?(?:in )?base ?([0-9]+)\}?$")

Unit = frozenset[tuple[str, int]]


class Labeled(NamedTuple):
    """A value's text and its labels."""

    value: str
    unit: Unit
    is_percent: bool


def labeled(text: str, letters_are_units: bool) -> Labeled:
    r"""Split a normalized answer into its value and its labels.

    letters_are_units: read "5 m" as a number with a unit, not as 5 times a variable m."""
    powers: Counter[str] = Counter()
    if r"\$" in text:
        powers["dollar"] = 1
        text = text.replace(r"\$", "")
    if degrees := _DEGREES.search(text):
        powers[f"degree{degrees[1] or degrees[2] or ''}"] = 1
        text = text[: degrees.start()]
    start = _tail(text, letters_are_units)
    if start is not None:
        powers.update(_unit_powers(text[start:]))
        text = text[:start]
    unit = frozenset((name, power) for name, power in powers.items() if power)
    return Labeled(text.removesuffix("%").strip(), unit, text.endswith("%"))


def _tail(text: str, letters_are_units: bool) -> int | None:
    if not text.startswith(r"\text"):
        for start in _START.finditer(text, 1):
            if text[0].isalpha() and start[0][0] != "\\":
                continue  # product of variables
            if _is_words(text, start.start()) and _is_word(start[0], letters_are_units):
                return start.start()
    return None


def _is_words(text: str, start: int) -> bool:
    """Whether text consists of words from start on.

    Word by word: one pattern would backtrack exponentially on long sentences, and the possessive
    one that does not is wrong in Python 3.11.2."""
    end, word = start, _FIRST_WORD.match(text, start)
    while word is not None:
        end = word.end()
        word = _NEXT_WORD.match(text, end)
    return end > start and _LAST_SIGNS.fullmatch(text, end) is not None


def _is_word(text: str, letters_are_units: bool) -> bool:
    word = text.strip().lower()
    known = word in _UNITS or word in _RAISING
    if text.startswith("\\") or (known and (letters_are_units or len(word) > 2)):
        return True
    return letters_are_units and (len(word) > 3 or (text[0] == " " and len(word) > 1))


def _unit_powers(text: str) -> Counter[str]:
    text = text.replace(r"\text", " ").replace("(s)", "s").replace("{", " {").replace("^ {", "^{")
    powers: Counter[str] = Counter()
    power, sign, unit = 1, 1, ""
    pieces = _PIECE.findall(text.lower())
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=False):
        if piece in ("/", "per"):
            sign = -1
        elif piece in _RAISING:
            power = _RAISING[piece]
        elif piece[0] in "^23" or piece in _RAISED:
            if unit:
                powers[unit] *= _RAISED.get(piece) or int(piece.strip("^{}"))
        elif piece == "in" and following and (powers or following.isalpha()):
            # "5 in" is a length, "5 in all" is not
            unit = "" if powers else unit
        elif piece in _UNITS:
            unit = _UNITS[piece]
            for name, times in _RATES.get(unit, {unit: 1}).items():
                powers[name] += sign * power * times
            power = 1
        else:
            unit = ""
    return powers


def based(text: str) -> tuple[str, str | None]:
    """Split a number into its digits and its base (None if absent)."""
    if spoken := _IN_BASE.search(text):
        return text[: spoken.start()].strip(), spoken[1]
    match = _BASE.fullmatch(text) if "_" in text else None
    return (match[1], _BASES.get(match[2], match[2])) if match else (text, None)
