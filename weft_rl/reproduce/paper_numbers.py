"""What the WeFT paper reports, in percent unless said otherwise: to stand beside our own numbers.

All of it is LLaDA-8B-Instruct, without intervals. Source: WeFT, Tables 1-5 and Figure 4."""

from dataclasses import dataclass, field

TASKS = ("sudoku", "countdown", "gsm8k", "math500")
# The cold-start data sets of Table 1, by our names for them.
DATA_SETS = {"s1k": "s1K", "s1k-1.1": "s1K-1.1", "openr1-3k": "openr1-3k"}


@dataclass(frozen=True)
class Row:
    """A row of a table: a model, told by its cold start and data and whether RL followed.

    arm: a cold-start stage, or "base"; printed: the paper's score for each task it gives."""

    label: str
    arm: str
    printed: dict[str, float] = field(hash=False)
    data: str = "s1k"
    after_rl: bool = False


def _scores(*values: float) -> dict[str, float]:
    return dict(zip(TASKS, values, strict=True))


_BASE = Row("base model", "base", _scores(5.5, 16.0, 76.7, 32.4))
_SFT = Row("SFT", "sft", _scores(4.6, 23.8, 78.8, 32.6))
_WEFT = Row("WeFT", "weft", _scores(7.8, 24.6, 78.0, 33.0))

SCORES: dict[int, tuple[str, list[Row]]] = {
    1: (
        "Cold starts on three data sets",
        [
            _BASE,
            _SFT,
            _WEFT,
            Row("SFT", "sft", _scores(4.2, 21.5, 78.4, 30.8), "s1k-1.1"),
            Row("WeFT", "weft", _scores(6.8, 20.3, 78.1, 32.6), "s1k-1.1"),
            Row("SFT", "sft", _scores(6.3, 17.2, 77.3, 32.0), "openr1-3k"),
            Row("WeFT", "weft", _scores(6.9, 17.6, 77.5, 32.8), "openr1-3k"),
        ],
    ),
    2: (
        "Sudoku before and after RL",
        [
            Row("base model", "base", {"sudoku": 5.5}),
            Row("SFT", "sft", {"sudoku": 4.6}),
            Row("WeFT", "weft", {"sudoku": 7.8}),
            Row("SFT + RL", "sft", {"sudoku": 8.9}, after_rl=True),
            Row("WeFT + RL", "weft", {"sudoku": 13.3}, after_rl=True),
        ],
    ),
    3: (
        "Rates from -log p instead of the entropy",
        [_SFT, Row("-log p", "nll", _scores(3.0, 16.4, 75.4, 29.2)), _WEFT],
    ),
    4: (
        "Weights of the loss instead of masking rates",
        [
            Row("Dream", "dream", _scores(3.3, 21.1, 77.0, 30.0)),
            Row("WeFT (SW)", "weft_sw", _scores(5.3, 23.8, 75.9, 31.6)),
            _WEFT,
        ],
    ),
}
# Table 5, gradient norm over training: maximum, median, mean.
GRADIENT_NORMS = {"weft_entropy": (646.1, 0.47, 2.02), "weft": (46.2, 0.43, 1.03)}
# Figure 4: WeFT's training time over SFT's, 20 epochs on s1K with four H100.
TIME_RATIO = 1.24
TABLES = (*SCORES, 5)
FIGURES = (2, 3, 4)
