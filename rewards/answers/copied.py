r"""Detection of answers copied from the question; only worker processes import it.

Formulas are compared by structure: 2^{10}, "(2^10)" and "1 \cdot 2^{10} + 0" are the same."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from sympy import Basic, sympify

from weft_rl.rewards.answers.latex import unicode_to_latex
from weft_rl.rewards.answers.normalize import normalized
from weft_rl.rewards.answers.values import equal, expression, parse, reveal

Form = str | tuple  # a leaf's name, or an operation's name followed by the forms of its arguments
# A problem has up to a few thousand characters, a formula rarely 100.
_LONGEST_PROBLEM, _LONGEST = 8192, 300

_NUMBER = re.compile(
    r"(?<![0-9_])(?<!_\{)(?P<number>[0-9]+(?:\{?,\}?[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:_(?:[0-9]+|\{[0-9]+\}))?"  # subscript: number base
)
# Names hide numbers, gcd and lcm, because parsing evaluates: \binom{8}{4} would become 70.
_DIVISORS = re.compile(r"\\(?:operatorname\{(?=gcd\}|lcm\}))?(gcd|lcm)(?![a-z])\}?")
_ZERO, _ONE, _MINUS = "N_0", "N_1", "-1"

_FORMULA = re.compile(
    r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\[((?:(?!\\\[).)+?)\\\]|\\\(((?:(?!\\\().)+?)\\\)", re.DOTALL
)
_PICTURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[?:;\n]|[.,](?![0-9])")
_ROWS = re.compile(r"\\(?:begin|end)\{(?:align|gather|equation|split|eqnarray)(?:ed)?\*?\}")
_PARTS = re.compile(r"\\\\|[=<>,;&]|\\[lg]eq?(?![a-z])|\\(?:text|mbox)\{[^{}]*\}")
_SPACING = re.compile(r"\\(?:left|right|displaystyle)(?![a-z])|\\[,;:! ]|[\s(){}\[\]]")
_OPERATION = re.compile(r"[^0-9A-Za-z.,\s]")


def is_copied(given: str, right: str, problem: str) -> bool:
    """Return whether a correct answer only repeats a formula of the problem.

    True if that formula differs in structure from the key; for "2^{10} = 1024" the last side
    counts. given, right: LaTeX of equal value. problem: text with formulas."""
    asked, full = _operations_of(problem), _parsed(given)
    stated = given
    if "=" not in right and "=" in given:
        equations = _operations(_form(full)) if full is not None else ()
        # "x + y = 5" states 5, unless it is an equation of the problem
        if any(e in asked and e[0] == "Equality" and isinstance(e[1], tuple) for e in equations):
            return True
        stated = given.rpartition("=")[2]
    answer = full if stated == given else _parsed(stated)
    if answer is None:
        bare = _bare(stated)
        return bare != _bare(right) and bare in _bare(problem)
    final = {_form(e) for e in map(_parsed, (right, right.rpartition("=")[2])) if e is not None}
    form = _form(answer)
    if form in final:
        return False
    inside = set(_operations(form))
    return form in asked or any(
        operation not in final
        and any(_contains(part, operation) for part in inside)
        and _has_value(parsed, right)
        for operation, parsed in asked.items()
    )


@lru_cache(maxsize=1024)
def _operations_of(problem: str) -> dict[Form, Basic]:
    operations: dict[Form, Basic] = {}
    for text in _formulas(problem[:_LONGEST_PROBLEM]):
        for part in _subexpressions(_parsed(text)):
            if not _is_atom(form := _form(part)):
                operations.setdefault(form, part)
    return operations


def _formulas(problem: str) -> list[str]:
    problem = _PICTURE.sub("\n", unicode_to_latex(problem)).replace(r"\$", " ")
    texts = ["".join(groups) for groups in _FORMULA.findall(problem)]
    texts += _PROSE.split(_FORMULA.sub("\n", problem))
    rows = [_ROWS.sub(" ", text) for text in texts]
    parts = [part.strip(" .,\n\t") for row in rows for part in (row, *_PARTS.split(row))]
    usable = (part for part in parts if len(part) <= _LONGEST and _OPERATION.search(part))
    return list(dict.fromkeys(usable))


def _parsed(text: str) -> Basic | None:
    """Parse a formula with sympy without evaluation; None if parsing fails."""
    text = _DIVISORS.sub(r"\\text{\1}", re.sub(r"\\\$|%", " ", normalized(text)))
    parsed = parse(_NUMBER.sub(lambda number: f" N_{{{number['number']}}} ", text))
    return None if parsed is None else sympify(parsed)  # immutable: matrices have arguments too


def _subexpressions(expression: Basic | None) -> Iterator[Basic]:
    if expression is not None:
        yield expression
        for argument in expression.args:
            yield from _subexpressions(argument)


def _form(expression: Basic) -> Form:
    """Structure of an expression: sums and products flattened and sorted, neutral terms dropped."""
    name, parts = type(expression).__name__, [_form(e) for e in expression.args]
    if not parts:
        return str(expression)
    if name in ("UnevaluatedExpr", "FiniteSet") and len(parts) == 1:
        return parts[0]
    if name == "Pow" and (parts[1] == _ONE or parts == [_ONE, _MINUS]):
        return parts[0]
    if name in ("Add", "Mul"):
        neutral = _ZERO if name == "Add" else _ONE
        flat = [p for part in parts for p in (part[1:] if part[0] == name else [part])]
        if name == "Mul" and _ZERO in flat:
            return _ZERO
        kept = sorted((p for p in flat if p not in (neutral, _MINUS)), key=repr)
        kept += [_MINUS] * (flat.count(_MINUS) % 2 if name == "Mul" else flat.count(_MINUS))
        return (name, *kept) if len(kept) > 1 else kept[0] if kept else neutral
    return (name, *parts)


def _is_atom(form: Form) -> bool:
    match form:
        case str() | ("Mul", str(), "-1"):
            return True
    return False


def _operations(form: Form) -> Iterator[Form]:
    if not _is_atom(form):
        yield form
        for part in form[1:]:
            yield from _operations(part)


def _contains(part: Form, operation: Form) -> bool:
    """Whether `part` is the operation, or a sum or product with it among its terms."""
    if part[0] != operation[0] or part[0] not in ("Add", "Mul"):
        return part == operation
    return Counter(operation[1:]) <= Counter(part[1:])


def _has_value(parsed: Basic, right: str) -> bool:
    wanted, revealed = expression(normalized(right)), reveal(parsed)
    if wanted is None or revealed is None or revealed.is_Matrix:
        return False
    return equal(wanted, revealed)


def _bare(text: str) -> str:
    """Text without spaces and brackets, with one name for fractions, for substring search."""
    return re.sub("[dt]frac", "frac", _SPACING.sub("", text))
