r"""Unicode characters of a formula as LaTeX: "½x²" is "\frac{1}{2}x^{2}"."""

import re
import unicodedata

_GREEK = [
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi"),
    *("chi", "psi", "omega"),
]
_SIGNS = {
    **dict.fromkeys("\u2212\u2013\u2014\u2012\u2010\u2011\u2015\ufe63\uff0d", "-"),
    **dict.fromkeys("\u00b7\u22c5\u2219\u2022\u30fb", r"\cdot "),
    **dict.fromkeys("\u00d7\u2715\u2a2f", r"\times "),
    **dict.fromkeys("\u00f7\u2044\u2215\u29f8", "/"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202c\u202d\u202e", ""),
    **dict.fromkeys("\u2009\u202f\u2008\u200a", r"\,"),  # thin spaces, between groups of digits
    **dict.fromkeys("\u00b0\u00ba\u02da", r"^{\circ}"),
    **dict.fromkeys("\u201c\u201d\u2018\u2019\u00ab\u00bb", " "),
    **dict.fromkeys("\u2205\u00d8\u2300", r"\emptyset "),
    **{"\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2a7d": r"\le "},
    **{"\u2a7e": r"\ge ", "\u2260": r"\ne ", "\u2248": r"\approx ", "\u00b1": r"\pm "},
    **{"\u2213": r"\mp ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in "},
    **{"\u2216": r"\setminus ", "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}"},
    **{"\u2220": r"\angle ", "\u2225": r"\parallel ", "\u22a5": r"\perp ", "\u2026": "..."},
    **{"\u27e8": r"\langle ", "\u27e9": r"\rangle ", "\u2329": r"\langle ", "\u232a": r"\rangle "},
    **{"\u230a": r"\lfloor ", "\u230b": r"\rfloor ", "\u2308": r"\lceil ", "\u2309": r"\rceil "},
    **{"\u2032": "'", "\u2033": "''", "\u20ac": r"\text{ euro}", "\u00a3": r"\text{ gbp}"},
    **{"\u00a5": r"\text{ yen}", "\u00a2": r"\text{ cent}", "\u2103": r"^{\circ}C"},
    **{"\u2102": r"\mathbb{C}", "\u03d5": r"\phi ", "\u03d1": r"\theta ", "\u03f5": r"\epsilon "},
    **{"\u33a0": r"\text{ cm}^{2}", "\u33a1": r"\text{ m}^{2}", "\u33a5": r"\text{ m}^{3}"},
    **{"\u33a4": r"\text{ cm}^{3}", "\u33a2": r"\text{ km}^{2}", "\u33a3": r"\text{ mm}^{3}"},
}
_SIGNS |= {chr(0x3B1 + i + (i > 16)): rf"\{name} " for i, name in enumerate(_GREEK)}
_SIGNS |= {
    unicodedata.lookup(f"GREEK CAPITAL LETTER {'LAMDA' if name == 'lambda' else name.upper()}"): (
        rf"\{name.capitalize()} "
    )
    for name in ("gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega")
}
_TABLE = str.maketrans(_SIGNS)

_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f\u2071"
_LOWERED = "".join(chr(0x2080 + i) for i in range(12))
_SCRIPTS = str.maketrans(_RAISED + _LOWERED, "0123456789+-ni0123456789+-")
_SUPERSCRIPT, _SUBSCRIPT = re.compile(f"[{_RAISED}]+"), re.compile(f"[{_LOWERED}]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_ROOTS = {"\u221a": r"\sqrt", "\u221b": r"\sqrt[3]", "\u221c": r"\sqrt[4]"}
_ROOT = re.compile(r"([\u221a-\u221c])\s*([0-9]+(?:\.[0-9]+)?|\([^()]*\)|\{[^{}]*\})?")
# a line or dots above repeating digits
_LINED, _DOTTED = re.compile("((?:[0-9][\u0304\u0305])+)"), re.compile("([0-9])\u0307")


def in_latex(text: str) -> str:
    """The text with the characters of formulas that ASCII lacks as commands; others stay."""
    if text.isascii():
        return text
    text = _VULGAR.sub(_vulgar, text)
    text = _SUPERSCRIPT.sub(lambda m: f"^{{{m[0].translate(_SCRIPTS)}}}", text)
    text = _SUBSCRIPT.sub(lambda m: f"_{{{m[0].translate(_SCRIPTS)}}}", text)
    text = _LINED.sub(lambda m: rf"\overline{{{re.sub('[^0-9]', '', m[1])}}}", text)
    text = _DOTTED.sub(r"\\dot{\1}", text)
    text = _ROOT.sub(_root, text.translate(_TABLE))
    # full-width and mathematical alphabets; a second time, as these hold signs and Greek too
    return unicodedata.normalize("NFKC", text).translate(_TABLE)


def _vulgar(character: re.Match[str]) -> str:
    upper, _, lower = unicodedata.normalize("NFKC", character[0]).partition("\u2044")
    return rf"\frac{{{upper}}}{{{lower or '1'}}}"


def _root(root: re.Match[str]) -> str:
    under = root[2]
    if under is None:
        return f"{_ROOTS[root[1]]} "
    return f"{_ROOTS[root[1]]}{{{under[1:-1] if under[0] in '({' else under}}}"
