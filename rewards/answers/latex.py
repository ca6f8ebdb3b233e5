r"""LaTeX normalization: "½", \dfrac12, \frac {1}{2} and {\bf \tfrac{1}2} become \frac{1}{2}."""

import re
import unicodedata

# Deeper than any answer; keeps nested braces below Python's recursion limit.
_DEEPEST = 40
_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|[0-9]+|\s+|.", re.DOTALL)
_TEXTUAL = re.compile(r"[^0-9\\]*[A-Za-z][^0-9\\]*")
_ENDS_IN_COMMAND = re.compile(r"\\[A-Za-z]+$")


def _names(text: str) -> frozenset[str]:
    return frozenset("\\" + name for name in text.split())


def _synonyms(table: str) -> dict[str, str]:
    """Map each name of an entry to the last one; a semicolon ends an entry."""
    entries = [entry.split() for entry in table.split(";")]
    return {name: target for *names, target in entries for name in names}


_DROPPED = _names(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle "
    "textstyle scriptstyle limits nolimits rm bf it sf tt sl cal bfseries itshape mathstrut "
    "tiny small footnotesize normalsize large Large LARGE huge Huge strut noindent centering "
    "mathrm* relax ! / - #"
)
_SPACES = _names(", ; : > quad qquad enspace thinspace medspace thickspace space ( ) [ ] \\") | {
    *("\\ ", "~", "&", "$")
}
# Commands dropped together with their argument, and commands replaced by it.
_SKIPPED = _names(
    "color hspace hspace* vspace phantom hphantom vphantom label tag tag* textcolor colorbox "
    "definecolor"
)
_FONTS = _names(
    "mathbf boldsymbol bm pmb mathit mathsf mathtt mathnormal mathcal mathscr underline underbrace "
    "ensuremath boxed fbox framebox smash mathop mathord mathrel mathbin cancel"
)
_TEXTS = _names(
    "text textbf textit textrm textsf texttt textnormal textup textsl emph mbox hbox mathrm "
    "operatorname operatorname* textmd textsc"
)
_ONE_ARGUMENT = _names("overline bar dot vec hat widehat overrightarrow mathbb")
_TWO_ARGUMENTS = _names("frac binom")
_COMMANDS = _synonyms(r"""
    \dfrac \tfrac \cfrac \frac; \dbinom \tbinom \binom; \leq \leqslant \leqq \le;
    \geq \geqslant \geqq \ge; \neq \not= \ne; * \times \ast \cdotp \bullet \cdot; \div /;
    \dots \ldots \cdots \dotsc \dotsb \ldots; \vert \lvert \rvert \mid |; \lor \vee \text{or};
    \land \wedge \text{and}; \varnothing \emptyset; \lbrace \{; \rbrace \}; \lbrack [; \rbrack ];
    \lt <; \gt >; \colon :; \degree \textdegree ^{\circ}; \prime '; \infin \infty; \% %;
    \textdollar \$; \_ _; \pounds \text{gbp}; \euro \text{euro}; \thickapprox \approx
""")
_FUNCTIONS = _names(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp gcd lcm max min"
)
_MATRICES = re.compile(r"([bpvBV]?)(?:small)?matrix\*?|array")

_CHARACTERS = _synonyms(r"""
    · ⋅ ∙ • ・ \cdot; × ✕ ⨯ \times; ÷ ⁄ ∕ ⧸ /; ° º ˚ ^{\circ}; ∅ Ø ⌀ \emptyset; ∞ \infty; ≤ ⩽ \le;
    ≥ ⩾ \ge; ≠ \ne; ≈ \approx; ± \pm; ∓ \mp; ∪ \cup; ∩ \cap; ∈ \in; ∖ \setminus; ℝ \mathbb{R};
    ℤ \mathbb{Z}; ℂ \mathbb{C}; ∠ \angle; ∥ \parallel; ⊥ \perp; … ...; ⟨ 〈 \langle; ⟩ 〉 \rangle;
    ⌊ \lfloor; ⌋ \rfloor; ⌈ \lceil; ⌉ \rceil; ′ '; ″ ''; ϕ \phi; ϑ \theta; ϵ \epsilon; ℃ ^{\circ}C;
    € \text{euro}; £ \text{gbp}; ¥ \text{yen}; ¢ \text{cent}; ㎠ \text{cm}^{2}; ㎡ \text{m}^{2};
    ㎥ \text{m}^{3}; ㎤ \text{cm}^{3}; ㎢ \text{km}^{2}; ㎣ \text{mm}^{3}
""")  # noqa: RUF001
_CHARACTERS = {
    character: f"{command} " if command[-1].isalpha() else command
    for character, command in _CHARACTERS.items()
}
_CHARACTERS |= dict.fromkeys("\u2212\u2013\u2014\u2012\u2010\u2011\u2015\ufe63\uff0d", "-")
_CHARACTERS |= dict.fromkeys("\u201c\u201d\u2018\u2019\u00ab\u00bb", " ")
_CHARACTERS |= dict.fromkeys("\u2009\u202f\u2008\u200a", r"\,")  # between digit groups
# Zero-width characters: joiners, direction marks, soft hyphen.
_CHARACTERS |= dict.fromkeys(
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202c\u202d\u202e", ""
)
for _code in range(0x391, 0x3CA):  # capital alpha to small omega
    _name = unicodedata.name(chr(_code), "").replace("LAMDA", "LAMBDA").split()
    if len(_name) == 4:
        _CHARACTERS[chr(_code)] = (
            rf"\{_name[3].lower() if _name[1] == 'SMALL' else _name[3].capitalize()} "
        )
_TABLE = str.maketrans(_CHARACTERS)

_SUPERSCRIPT = re.compile("[\u2070\u2071\u00b9\u00b2\u00b3\u2074-\u207b\u207f]+")
_SUBSCRIPT = re.compile("[\u2080-\u208b]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_ROOTS = {"\u221a": r"\sqrt", "\u221b": r"\sqrt[3]", "\u221c": r"\sqrt[4]"}
_ROOT = re.compile(r"([\u221a-\u221c])\s*([0-9]+(?:\.[0-9]+)?|\([^()]*\)|\{[^{}]*\})?")
_LINED, _DOTTED = re.compile("((?:[0-9][\u0304\u0305])+)"), re.compile("([0-9])\u0307")


def unicode_to_latex(text: str) -> str:
    """Replace non-ASCII math characters by commands; keep all others."""
    if text.isascii():
        return text
    text = _VULGAR.sub(_vulgar, text)
    text = _SUPERSCRIPT.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _SUBSCRIPT.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _LINED.sub(lambda m: rf"\overline{{{re.sub('[^0-9]', '', m[1])}}}", text)
    text = _DOTTED.sub(r"\\dot{\1}", text)
    text = _ROOT.sub(_root, text.translate(_TABLE))
    # full-width and mathematical alphabets; translated again because they contain signs and Greek
    return unicodedata.normalize("NFKC", text).translate(_TABLE)


def _vulgar(character: re.Match[str]) -> str:
    upper, _, lower = unicodedata.normalize("NFKC", character[0]).partition("\u2044")
    return rf"\frac{{{upper}}}{{{lower or '1'}}}"


def _root(root: re.Match[str]) -> str:
    radicand = root[2]
    if radicand is None:
        return f"{_ROOTS[root[1]]} "
    return f"{_ROOTS[root[1]]}{{{radicand[1:-1] if radicand[0] in '({' else radicand}}}"


class TooDeep(ValueError):
    """The text is nested deeper than any answer."""


def respell(latex: str) -> str:
    """Return a formula in normalized spelling. Raises TooDeep."""
    return _Reader(_TOKEN.findall(latex)).until(None)


class _Reader:
    """Token stack; the next token is last, so that tokens can be pushed back."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]
        self.depth = 0
        self.in_matrix = False

    def until(self, stop: str | None) -> str:
        """Parse up to the closing token, or to the end."""
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
        token = _COMMANDS.get(token, token)
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
        if token in _SKIPPED:
            self.raw()
            return ""
        if token in _FONTS:
            return self.argument()
        if token == "\\sqrt":
            self.blanks()
            degree = ""
            if self.tokens[-1:] == ["["]:
                self.tokens.pop()
                degree = self.until("]")
            index = f"[{degree}]" if degree not in ("", "2") else ""
            return f"\\sqrt{index}{{{self.argument('(')}}}"
        if token in _TWO_ARGUMENTS:
            return f"{token}{{{self.argument()}}}{{{self.argument()}}}"
        return f"{token}{{{self.argument()}}}" if token in _ONE_ARGUMENT else token

    def blanks(self) -> None:
        while self.tokens and (self.tokens[-1].isspace() or self.tokens[-1] == "~"):
            self.tokens.pop()

    def argument(self, opening: str = "") -> str:
        """Parse one argument: a group, a digit, or a token with its arguments."""
        self.blanks()
        if not self.tokens:
            return ""
        token = self.tokens.pop()
        if token == "(" and opening:
            return self.until(")")
        if token.isdecimal() and len(token) > 1:
            self.tokens.append(token[1:])
            return token[0]
        if token == "}":  # no argument: the enclosing group ends
            self.tokens.append(token)
            return ""
        return self.item(token).strip()

    def script(self, token: str) -> str:
        """Parse a sub- or superscript; a number may have a sign and any length."""
        self.blanks()
        if not self.tokens:
            return ""
        sign = self.tokens.pop() if self.tokens[-1] in ("-", "+") else ""
        if self.tokens and self.tokens[-1].isdecimal():
            inside = self.tokens.pop()
            if len(self.tokens) > 1 and self.tokens[-1] == "." and self.tokens[-2].isdecimal():
                inside += self.tokens.pop() + self.tokens.pop()
        else:
            inside = self.argument("(" if token == "^" else "")
        if inside == "'":
            return inside
        return f"{token}{{{sign}{inside}}}" if inside else ""

    def raw(self) -> str:
        """Return the tokens of a group unparsed."""
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
        """Parse text; numbers and single letters in a formula font become a formula."""
        inside = self.raw().replace("$", " ")
        plain = inside.strip()
        if f"\\{plain}" in _FUNCTIONS:
            return f"\\{plain}"
        if not plain.isascii() or not _TEXTUAL.fullmatch(plain):
            self.tokens += ["}", *_TOKEN.findall(inside)[::-1], "{"]
            return self.argument()
        if token == "\\mathrm" and plain in ("e", "i", "d", "T"):
            return plain
        return f"\\text{{{' '.join(inside.split())}}}"

    def environment(self) -> str:
        """Parse an environment: a matrix by cells, the content of any other."""
        name = self.raw()
        matrix = _MATRICES.fullmatch(name)
        if name == "array" or name.endswith("at"):
            self.raw()  # column alignment
        outside, self.in_matrix = self.in_matrix, bool(matrix)
        inside = self.until("\\end")
        self.in_matrix = outside
        self.raw()
        if not matrix:
            return f" {inside} "
        kind = "vmatrix" if matrix[1] == "v" else "matrix"
        return f"\\begin{{{kind}}}{inside}\\end{{{kind}}}"


def _joined(parts: list[str]) -> str:
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
