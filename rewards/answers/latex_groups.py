r"""A LaTeX formula in one spelling: \dfrac12, \frac {1}{2} and {\bf \tfrac{1}2} become \frac{1}{2}.

Groups that only group, fonts, colors, sizes and spaces are dropped; arguments get their braces."""

import re

# Deeper than any answer; a text of open braces must not reach the interpreter's limit.
_DEEPEST = 40
_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|[0-9]+|\s+|.", re.DOTALL)
# Text that is not a formula in a formula's font: letters, and no digit or command.
_TEXTUAL = re.compile(r"[^0-9\\]*[A-Za-z][^0-9\\]*")


def _names(text: str) -> frozenset[str]:
    return frozenset("\\" + name for name in text.split())


_DROPPED = _names(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle "
    "textstyle scriptstyle limits nolimits rm bf it sf tt sl cal bfseries itshape mathstrut "
    "tiny small footnotesize normalsize large Large LARGE huge Huge strut noindent centering "
    "mathrm* relax , ! ( ) [ ] /"
) - _names(", ( ) [ ]")
_SPACES = _names(", ; : > quad qquad enspace thinspace medspace thickspace space ( ) [ ] \\") | {
    *("\\ ", "~", "&", "$")
}
# what is skipped with its argument in braces, and what keeps nothing but its argument
_SKIPPED = _names("color hspace hspace* vspace phantom hphantom vphantom label tag tag* textcolor")
_SKIPPED |= _names("colorbox definecolor")
_FONTS = _names(
    "mathbf boldsymbol bm pmb mathit mathsf mathtt mathnormal mathcal mathscr underline underbrace "
    "ensuremath boxed fbox framebox smash mathop mathord mathrel mathbin cancel mathstrut"
)
_TEXTS = _names(
    "text textbf textit textrm textsf texttt textnormal textup textsl emph mbox hbox mathrm "
    "operatorname operatorname* textmd textsc"
)
_TWO = {"\\frac": "\\frac", "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac"}
_TWO |= {"\\binom": "\\binom", "\\dbinom": "\\binom", "\\tbinom": "\\binom"}
_ONE = _names("overline bar dot vec hat widehat overrightarrow mathbb")
_SAME = {
    **dict.fromkeys(_names("leq leqslant leqq"), "\\le"),
    **dict.fromkeys(_names("geq geqslant geqq"), "\\ge"),
    **dict.fromkeys(_names("neq not="), "\\ne"),
    **dict.fromkeys(_names("times ast cdotp bullet"), "\\cdot"),
    **dict.fromkeys(_names("dots ldots cdots dotsc dotsb"), "\\ldots"),
    **dict.fromkeys(_names("vert lvert rvert mid"), "|"),
    **dict.fromkeys(_names("lor vee"), "\\text{or}"),
    **dict.fromkeys(_names("land wedge"), "\\text{and}"),
    **{"\\varnothing": "\\emptyset", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\div": "/"},
    **{"\\lt": "<", "\\gt": ">", "\\colon": ":", "\\degree": "^{\\circ}", "*": "\\cdot"},
    **{"\\textdegree": "^{\\circ}", "\\prime": "'", "\\infin": "\\infty", "\\%": "%"},
    **{"\\lbrack": "[", "\\rbrack": "]", "\\textdollar": "\\$", "\\-": "", "\\#": "", "\\_": "_"},
    **{"\\pounds": "\\text{gbp}", "\\euro": "\\text{euro}", "\\thickapprox": "\\approx"},
}
_FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "exp",
        "gcd",
        "lcm",
        "max",
        "min",
    ]
)
_MATRICES = re.compile(r"([bpvBV]?)(?:small)?matrix\*?|array")


class TooDeep(ValueError):
    """The text is nested deeper than any answer."""


def spelled(text: str) -> str:
    """The formula in one spelling. Raises TooDeep."""
    return _Reader(_TOKEN.findall(text)).until(None)


class _Reader:
    """Reads tokens one formula after another; `last` first, so that a rest can be put back."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]
        self.depth = 0
        self.in_matrix = False

    def until(self, stop: str | None) -> str:
        """What stands before the closing token, or all."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise TooDeep(f"nested deeper than {_DEEPEST}")
        parts: list[str] = []
        while self.tokens:
            token = self.tokens.pop()
            if token == stop:
                break
            parts.append(self.item(token))
        self.depth -= 1
        return _joined(parts)

    def item(self, token: str) -> str:
        """A token with its arguments."""
        token = _SAME.get(token, token)
        if token in ("&", "\\\\") and self.in_matrix:
            return token
        if token in _DROPPED or token in ("", "}"):
            return ""
        if token[0].isspace() or token in _SPACES:
            return " "
        if token == "{":
            return self.until("}")
        if token in ("^", "_"):
            return self.script(token)
        if token in _TEXTS:
            return self.words(token)
        if token == "\\begin":
            return self.environment()
        return self.command(token)

    def command(self, token: str) -> str:
        if token in _SKIPPED:
            self.raw()
            return ""
        if token in _FONTS:
            return self.argument()
        if token in _TWO:
            return f"{_TWO[token]}{{{self.argument()}}}{{{self.argument()}}}"
        if token == "\\sqrt":
            self.blanks()
            root = ""
            if self.tokens and self.tokens[-1] == "[":
                self.tokens.pop()
                root = self.until("]")
            return f"\\sqrt{f'[{root}]' if root not in ('', '2') else ''}{{{self.argument('(')}}}"
        if token in _ONE:
            return f"{token}{{{self.argument()}}}"
        return token

    def blanks(self) -> None:
        while self.tokens and (self.tokens[-1].isspace() or self.tokens[-1] == "~"):
            self.tokens.pop()

    def argument(self, opening: str = "") -> str:
        """One argument: a group, a digit, or a token with arguments of its own."""
        self.blanks()
        if not self.tokens:
            return ""
        token = self.tokens.pop()
        if token == "(" and opening:
            return self.until(")")
        if token.isdecimal() and len(token) > 1:
            self.tokens.append(token[1:])
            return token[0]
        if token == "}":  # no argument: the group around it ends
            self.tokens.append(token)
            return ""
        return self.item(token).strip()

    def script(self, token: str) -> str:
        """A sub- or superscript, whose number may have a sign and any length."""
        self.blanks()
        if not self.tokens:
            return ""
        sign = self.tokens.pop() if self.tokens[-1] in ("-", "+") else ""
        if self.tokens and self.tokens[-1].isdecimal():
            number = self.tokens.pop()
            if len(self.tokens) > 1 and self.tokens[-1] == "." and self.tokens[-2].isdecimal():
                number += self.tokens.pop() + self.tokens.pop()
            inside = number
        else:
            inside = self.argument("(" if token == "^" else "")
        if inside == "'":
            return inside
        return f"{token}{{{sign}{inside}}}" if inside else ""

    def raw(self) -> str:
        """The tokens of a group as they stand."""
        self.blanks()
        if not self.tokens or self.tokens[-1] != "{":
            return ""
        parts, depth = [], 0
        while self.tokens:
            token = self.tokens.pop()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                break
            parts.append(token)
        return "".join(parts[1:])

    def words(self, token: str) -> str:
        """Text: words stay text, numbers and single letters in a formula's font are a formula."""
        inside = self.raw().replace("$", " ")
        plain = inside.strip()
        if plain in _FUNCTIONS:
            return f"\\{plain}"
        if not plain.isascii() or not _TEXTUAL.fullmatch(plain):
            self.tokens += ["}", *_TOKEN.findall(inside)[::-1], "{"]
            return self.argument()
        if token == "\\mathrm" and plain in ("e", "i", "d", "T"):
            return plain
        return f"\\text{{{' '.join(inside.split())}}}"

    def environment(self) -> str:
        """A matrix with its cells; of another environment its inside."""
        name = self.raw()
        matrix = _MATRICES.fullmatch(name)
        if name == "array" or name.endswith("at"):
            self.raw()  # the columns' alignment
        outside, self.in_matrix = self.in_matrix, bool(matrix)
        inside = self.until("\\end")
        self.in_matrix = outside
        self.raw()
        if not matrix:
            return f" {inside} "
        kind = "vmatrix" if matrix[1] == "v" else "matrix"
        return f"\\begin{{{kind}}}{inside}\\end{{{kind}}}"


def _joined(parts: list[str]) -> str:
    """The parts in a row; a blank only where two letters or digits would meet."""
    text, blank = "", False
    for part in parts:
        if part == " ":
            blank = True
        elif part:
            apart = blank and (text[-1:].isalnum() or text[-1:] in "}%") and part[0].isalnum()
            command = text[-1:].isalpha() and part[0].isalpha() and _ENDS_IN_COMMAND.search(text)
            text += f" {part}" if text and (apart or command) else part
            blank = False
    return text


_ENDS_IN_COMMAND = re.compile(r"\\[A-Za-z]+$")
