r"""Detection of answers copied from the question; imported by the worker process only.

Formulas are compared by how they are built, whatever their value: 2^{10}, "(2^10)" and
"1 \cdot 2^{10} + 0" are built alike, and "1024" is not."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from sympy import Basic, sympify

from weft_rl.rewards.answers.latex import unicode_to_latex
from weft_rl.rewards.answers.normalize import normalized
from weft_rl.rewards.answers.values import equal, expression, parse, reveal

# A form is a leaf's name, or an operation's name and the forms of its arguments.
Form = str | tuple
# Problems have up to some thousand characters, their formulas seldom a hundred.
_LONGEST_PROBLEM, _LONGEST = 8192, 300

_NUMBER = re.compile(
    r"(?<![0-9_])(?<!_\{)(?P<number>[0-9]+(?:\{?,\}?[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:_(?:[0-9]+|\{[0-9]+\}))?"  # the base it is written in
)
# Numbers are hidden behind names, as parsing computes with them: \binom{8}{4} would be 70.
# gcd and lcm would be computed; as words they are functions of no further meaning.
_DIVISORS = re.compile(r"\\(?:operatorname\{(?=gcd\}|lcm\}))?(gcd|lcm)(?![a-z])\}?")
_ZERO, _ONE, _MINUS = "N_0", "N_1", "-1"

_FORMULA = re.compile(
    r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\[((?:(?!\\\[).)+?)\\\]|\\\(((?:(?!\\\().)+?)\\\)", re.DOTALL
)
_PICTURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
# Between formulas: words, and the ends of sentences and clauses.
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[?:;\n]|[.,](?![0-9])")
_ROWS = re.compile(r"\\(?:begin|end)\{(?:align|gather|equation|split|eqnarray)(?:ed)?\*?\}")
_PARTS = re.compile(r"\\\\|[=<>,;&]|\\[lg]eq?(?![a-z])|\\(?:text|mbox)\{[^{}]*\}")
_SPACING = re.compile(r"\\(?:left|right|displaystyle)(?![a-z])|\\[,;:! ]|[\s(){}\[\]]")
_OPERATION = re.compile(r"[^0-9A-Za-z.,\s]")


def is_copied(given: str, right: str, problem: str) -> bool:
    """Return whether a right answer only repeats the problem.

    It does if it contains one of the problem's formulas that has the right value already and is not
    built as the right answer is. Of "2^{10} = 1024" the last side counts.
    given, right: LaTeX of the same value; problem: its text, formulas perhaps between dollars."""
    asked, full = _operations_of(problem), _parsed(given)
    stated = given
    if "=" not in right and "=" in given:
        equations = _operations(_form(full)) if full is not None else ()
        # "x + y = 5" states 5, but not if it is an equation of the problem
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
    """Every operation within the formulas of a problem: its form and an expression of it."""
    operations: dict[Form, Basic] = {}
    for text in _formulas(problem[:_LONGEST_PROBLEM]):
        for part in _subexpressions(_parsed(text)):
            if not _is_atom(form := _form(part)):
                operations.setdefault(form, part)
    return operations


def _formulas(problem: str) -> list[str]:
    """The formulas of a problem and their parts, each once."""
    problem = _PICTURE.sub("\n", unicode_to_latex(problem)).replace(r"\$", " ")
    texts = ["".join(groups) for groups in _FORMULA.findall(problem)]
    texts += _PROSE.split(_FORMULA.sub("\n", problem))
    rows = [_ROWS.sub(" ", text) for text in texts]
    parts = [part.strip(" .,\n\t") for row in rows for part in (row, *_PARTS.split(row))]
    usable = (part for part in parts if len(part) <= _LONGEST and _OPERATION.search(part))
    return list(dict.fromkeys(usable))


def _parsed(text: str) -> Basic | None:
    """A formula in sympy, nothing computed; None if it cannot be read."""
    text = _DIVISORS.sub(r"\\text{\1}", re.sub(r"\\\$|%", " ", normalized(text)))
    parsed = parse(_NUMBER.sub(lambda number: f" N_{{{number['number']}}} ", text))
    return None if parsed is None else sympify(parsed)  # immutable: a matrix too has arguments


def _subexpressions(expression: Basic | None) -> Iterator[Basic]:
    if expression is not None:
        yield expression
        for argument in expression.args:
            yield from _subexpressions(argument)


def _form(expression: Basic) -> Form:
    """How an expression is built: sums and products flat and in order, + 0 and the like dropped."""
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
    """Return whether a form is a number or name, perhaps negative: nothing to be computed."""
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
    """Return whether a form is the operation, or a sum or product with it among its terms."""
    if part[0] != operation[0] or part[0] not in ("Add", "Mul"):
        return part == operation
    return Counter(operation[1:]) <= Counter(part[1:])


def _has_value(parsed: Basic, right: str) -> bool:
    """Return whether an expression with hidden numbers has the right answer's value."""
    wanted, revealed = expression(normalized(right)), reveal(parsed)
    if wanted is None or revealed is None or revealed.is_Matrix:
        return False
    return equal(wanted, revealed)


def _bare(text: str) -> str:
    """A text for searching in it: without blanks and brackets, its fractions under one name."""
    return _SPACING.sub("", text).replace("dfrac", "frac").replace("tfrac", "frac")
