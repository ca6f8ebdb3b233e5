r"""How LaTeX formulas are built, whatever they are worth; only for math_worker's process.

Example: 2^{10}, "(2^10)", "1 \cdot 2^{10} + 0" are built alike, and "1024" is not."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Rational, Symbol, sympify

from weft_rl.rewards.answers.final_answer import normalized
from weft_rl.rewards.answers.unicode_latex import in_latex

_LATEX = [LatexExtractionConfig()]
# A form is a leaf's name, or an operation's name and the forms that it takes.
Form = str | tuple
# Problems have up to some thousand characters, their formulas seldom a hundred.
_LONGEST_PROBLEM, _LONGEST = 8192, 300

_NUMBER = re.compile(
    r"(?<![0-9_])(?<!_\{)(?P<number>[0-9]+(?:\{?,\}?[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:_(?:[0-9]+|\{[0-9]+\}))?"  # the base it is written in
)
# Numbers are hidden behind this name, as parsing computes with them: \binom{8}{4} would be 70.
_HIDDEN_NAME = re.compile(r"n_\{?([0-9.,{}]+?)\}?")
# gcd and lcm would be computed; as words they are functions of no further meaning.
_DIVISORS = re.compile(r"\\(?:operatorname\{(?=gcd\}|lcm\}))?(gcd|lcm)(?![a-z])\}?")
_ZERO, _ONE, _MINUS = "n_0", "n_1", "-1"

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


def parsed(text: str) -> list:
    """What math-verify reads in a formula without its dollar signs; empty when nothing."""
    return parse(f"${text}$", _LATEX, "no_fallback", "first_match", parsing_timeout=0)


def is_copied(given: str, right: str, problem: str) -> bool:
    """Whether a right answer only repeats the problem: within it stands one of the problem's
    formulas that has the right value already and is not built as the right answer is.

    given, right: LaTeX of the same value; problem: its text, formulas between dollar signs or not.
    Of "2^{10} = 1024" the last side counts."""
    asked, full = _built(problem), _expression(given)
    stated = given
    if "=" not in right and "=" in given:
        equations = _operations(_form(full)) if full is not None else ()
        # "x + y = 5" states 5, but not where it only is an equation of the problem
        if any(e in asked and e[0] == "Equality" and isinstance(e[1], tuple) for e in equations):
            return True
        stated = given.rpartition("=")[2]
    answer = full if stated == given else _expression(stated)
    if answer is None:
        bare = _bare(stated)
        return bare != _bare(right) and bare in _bare(problem)
    final = {_form(e) for e in map(_expression, (right, right.rpartition("=")[2])) if e is not None}
    whole = _form(answer)
    if whole in final:
        return False
    inside = set(_operations(whole))
    return whole in asked or any(
        form not in final and any(_holds(part, form) for part in inside) and _is_worth(e, right)
        for form, e in asked.items()
    )


@lru_cache(maxsize=1024)
def _built(problem: str) -> dict[Form, Basic]:
    """Every operation within the formulas of a problem: its form and an expression of it."""
    found: dict[Form, Basic] = {}
    for text in _formulas(problem[:_LONGEST_PROBLEM]):
        expression = _expression(text)
        for part in _subexpressions(expression):
            if not _is_atom(form := _form(part)):
                found.setdefault(form, part)
    return found


def _formulas(problem: str) -> list[str]:
    """The formulas of a problem and their parts, each once."""
    problem = _PICTURE.sub("\n", in_latex(problem)).replace(r"\$", " ")
    texts = ["".join(groups) for groups in _FORMULA.findall(problem)]
    texts += _PROSE.split(_FORMULA.sub("\n", problem))
    found: dict[str, None] = {}
    for text in texts:
        rows = _ROWS.sub(" ", text)
        for part in (rows, *_PARTS.split(rows)):
            part = part.strip(" .,\n\t")
            if len(part) <= _LONGEST and _OPERATION.search(part):
                found[part] = None
    return list(found)


def _expression(text: str) -> Basic | None:
    """A formula as sympy has it, nothing computed; None when it cannot be read."""
    text = re.sub(r"\\\$|%", " ", normalized(text))
    text = _DIVISORS.sub(r"\\text{\1}", text)
    found = parsed(_NUMBER.sub(_hidden, text))
    return sympify(found[0]) if found and not isinstance(found[0], str) else None


def _hidden(number: re.Match) -> str:
    return f" N_{{{number['number']}}} "


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
    """Whether a form is a number or name, perhaps negative: nothing to be computed."""
    match form:
        case str() | ("Mul", str(), "-1"):
            return True
    return False


def _operations(form: Form) -> Iterator[Form]:
    if not _is_atom(form):
        yield form
        for part in form[1:]:
            yield from _operations(part)


def _holds(part: Form, form: Form) -> bool:
    """Whether an operation is the other one, or a sum or product with that much in it."""
    if part[0] != form[0] or part[0] not in ("Add", "Mul"):
        return part == form
    return Counter(form[1:]) <= Counter(part[1:])


def _is_worth(expression: Basic, right: str) -> bool:
    """Whether an expression with hidden numbers has the right answer's value."""
    wanted = parsed(right)
    if not wanted or isinstance(wanted[0], str):
        return False
    one, other = (_revealed(sympify(e)) for e in (wanted[0], expression))
    return bool(verify([one], [other], timeout_seconds=0))


def _revealed(expression: Basic) -> Basic:
    """Hidden numbers as numbers; other names as real ones, as the parser does in most formulas."""
    values: dict[Basic, Basic] = {}
    for symbol in expression.free_symbols:
        hidden = _HIDDEN_NAME.fullmatch(str(symbol))
        values[symbol] = (
            Rational(re.sub("[,{}]", "", hidden[1])) if hidden else Symbol(str(symbol), real=True)
        )
    return expression.xreplace(values)


def _bare(text: str) -> str:
    """A text for searching in it: without blanks and brackets, its fractions under one name."""
    return _SPACING.sub("", text).replace("dfrac", "frac").replace("tfrac", "frac")
