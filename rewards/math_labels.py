r"""What an answer states beside its value: the base of a number, a unit, the name of a variable.

Example: "4343_5" is not "4343_6", nor 7\text{ m} 7\text{ cm}; one left out contradicts nothing."""

import re

# digits, perhaps in brackets, and the base below them
_BASED = re.compile(r"(?:(?<![A-Za-z0-9])[0-9][0-9A-Z]*|\))\s*_\s*\{?\s*\(?([0-9]+)")
_WORDS = re.compile(
    r"\\(?:text|textrm|textit|textbf|mathrm|mathit|mathbf|mbox|hbox)\s*\{([^{}]*)\}"
)
# "5 in" is a length, "5 in all" is not
_WORD = re.compile(r"\b(?!in\s+[A-Za-z])[A-Za-z]+")
_NAMED = re.compile(r"\s*([A-Za-z]|\\[A-Za-z]+)\s*=(.*)", re.DOTALL)
# Units that are told apart, each with its spellings; what is not listed contradicts nothing.
_UNITS: dict[str, str] = {
    spelling: names.split()[0]
    for names in (
        "mm millimeter millimeters millimetre millimetres",
        "cm centimeter centimeters centimetre centimetres",
        "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres",
        "in inch inches",
        "ft foot feet",
        "yd yard yards",
        "mi mile miles",
        "mg milligram milligrams",
        "g gram grams",
        "kg kilogram kilograms",
        "oz ounce ounces",
        "lb lbs pound pounds",
        "ml milliliter milliliters",
        "l liter liters litre litres",
        "gal gallon gallons",
        "s sec secs second seconds",
        "min mins minute minutes",
        "h hr hrs hour hours",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "cent cents",
        "dollar dollars",
        "degree degrees",
        "rad radian radians",
    )
    for spelling in names.split()
}


def contradicts(given: str, answer: str) -> bool:
    """Whether two LaTeX answers both state a base, a unit or a name, and not the same.

    The words of units are read within \\text{} and its kind. Of names, "y = 2" contradicts "x = 2",
    but an equation that holds both, such as "y = x" and "x = y", does not."""
    # most answers have none of these characters, which is found many times faster
    if "_" in given and "_" in answer and _differ(_bases(given), _bases(answer)):
        return True
    if "\\" in given and "\\" in answer and _differ(_units(given), _units(answer)):
        return True
    return "=" in given and "=" in answer and _other_name(given, answer)


def _differ(one: set[str], other: set[str]) -> bool:
    return bool(one and other) and one != other


def _bases(text: str) -> set[str]:
    """The bases that numbers of a text are written in."""
    return set(_BASED.findall(text))


def _units(text: str) -> set[str]:
    """The units that a text names."""
    inside = " ".join(_WORDS.findall(text)).lower().replace("(s)", "s")
    found: set[str] = {_UNITS[word] for word in _WORD.findall(inside) if word in _UNITS}
    if r"\$" in text:
        found.add("dollar")
    if r"\circ" in text:
        found.add("degree")
    return found


def _other_name(given: str, answer: str) -> bool:
    one, other = _NAMED.fullmatch(given), _NAMED.fullmatch(answer)
    if one is None or other is None or one[1].lower() == other[1].lower():
        return False
    return one[1] not in other[2] and other[1] not in one[2]
