"""Scores in the WeFT paper (Tables 1-5, Figure 4) for LLaDA-8B-Instruct, in percent."""

from dataclasses import dataclass, field

TASKS = ("sudoku", "countdown", "gsm8k", "math500")
# Cold-start data sets of Table 1: our name -> the paper's.
DATA_SETS = {"s1k": "s1K", "s1k-1.1": "s1K-1.1", "openr1-3k": "openr1-3k"}


@dataclass(frozen=True)
class Row:
    """A table row: cold start or "base", data set, RL or not, printed score by task."""

    label: str
    arm: str
    printed: dict[str, float] = field(hash=False)
    data: str = "s1k"
    after_rl: bool = False


def _row(label: str, arm: str, *scores: float, data: str = "s1k", after_rl: bool = False) -> Row:
    """Build a row from the scores of the first tasks of TASKS."""
    return Row(label, arm, dict(zip(TASKS, scores, strict=False)), data, after_rl)


_SFT = _row("SFT", "sft", 4.6, 23.8, 78.8, 32.6)
_WEFT = _row("WeFT", "weft", 7.8, 24.6, 78.0, 33.0)

SCORES: dict[int, tuple[str, list[Row]]] = {
    1: (
        "Cold starts on three data sets",
        [
            _row("base model", "base", 5.5, 16.0, 76.7, 32.4),
            _SFT,
            _WEFT,
            _row("SFT", "sft", 4.2, 21.5, 78.4, 30.8, data="s1k-1.1"),
            _row("WeFT", "weft", 6.8, 20.3, 78.1, 32.6, data="s1k-1.1"),
            _row("SFT", "sft", 6.3, 17.2, 77.3, 32.0, data="openr1-3k"),
            _row("WeFT", "weft", 6.9, 17.6, 77.5, 32.8, data="openr1-3k"),
        ],
    ),
    2: (
        "Sudoku before and after RL",
        [
            _row("base model", "base", 5.5),
            _row("SFT", "sft", 4.6),
            _row("WeFT", "weft", 7.8),
            _row("SFT + RL", "sft", 8.9, after_rl=True),
            _row("WeFT + RL", "weft", 13.3, after_rl=True),
        ],
    ),
    3: (
        "Rates from -log p instead of the entropy",
        [_SFT, _row("-log p", "nll", 3.0, 16.4, 75.4, 29.2), _WEFT],
    ),
    4: (
        "Weights of the loss instead of masking rates",
        [
            _row("Dream", "dream", 3.3, 21.1, 77.0, 30.0),
            _row("WeFT (SW)", "weft_sw", 5.3, 23.8, 75.9, 31.6),
            _WEFT,
        ],
    ),
}
# Table 5, gradient norm over training: maximum, median, mean.
GRADIENT_NORMS = {"weft_entropy": (646.1, 0.47, 2.02), "weft": (46.2, 0.43, 1.03)}
# Figure 4: training time of WeFT divided by that of SFT, 20 epochs on s1K, four H100s.
TIME_RATIO = 1.24
TABLES = (*SCORES, 5)
FIGURES = (2, 3, 4)
