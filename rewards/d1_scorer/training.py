r"""d1's training rewards, item by item: values, weights and oddities.

Each function gives d1's own value, weight included: 2 for a right answer, and for `tags` a number
that falls below 0 where text follows the answer. White space counts where d1's patterns name it, an
answer is right letter by letter, and the last <answer> is read.
Source: dllm-reasoning/d1, diffu-grpo/reward_func.py and math500_utils.py, described by their
behavior. Time is linear in the text, and no expression is run as code."""

from collections.abc import Sequence
from re import compile as pattern
from typing import Any

from weft_rl.rewards.d1_scorer.math import last_box, same_text
from weft_rl.rewards.d1_scorer.sudoku_countdown import equals
from weft_rl.rewards.sudoku import solutions
from weft_rl.rewards.sudoku_grid import CELLS

_OPEN, _CLOSE = "<answer>", "</answer>"
_RIGHT, _FORM, _TAG = 2.0, 0.5, 0.125
# d1 takes this off for each character behind the answer, once for either spelling of its end
_PER_CHARACTER = 0.001
_BETWEEN = pattern(r"</reasoning>\s*+<answer>")
# d1 writes "\boxed" in a plain Python string, which is a backspace and "oxed"
_MISSPELT_BOX = "\boxed"


def gsm8k_correct(completion: str, answer: str | float | None, **_: Any) -> float:
    """2 if the answer is letter by letter what follows #### in `answer`, else 0.

    answer: the data set's text, or the number alone as a text or a number; None is never right."""
    if answer is None:
        return 0.0
    truth = answer if isinstance(answer, str) else f"{answer:.15g}"
    if "####" in truth:
        truth = truth.split("####")[1].strip()
    return _RIGHT * (_tagged(completion) == truth)


def integer(completion: str, **_: Any) -> float:
    """0.5 if the answer is nothing but digits, else 0: neither "-5" nor "1,000" counts."""
    return _FORM * _tagged(completion).isdigit()


def strict_format(completion: str, **_: Any) -> float:
    """0.5 for four tags on lines of their own, with one line of reasoning and one of answer."""
    match completion.split("\n", 8):
        case ["<reasoning>", _, "</reasoning>", "<answer>", _, "</answer>", "", *more]:
            return _FORM * (more in ([], [""]))
    return 0.0


def soft_format(completion: str, **_: Any) -> float:
    """0.5 for a text that begins with one line of <reasoning>, before an answer on one line."""
    opening = "<reasoning>"
    if not completion.startswith(opening):
        return 0.0
    line_end = completion.find("\n")
    starts = [
        match.end()
        for match in _BETWEEN.finditer(completion, len(opening))
        if line_end < 0 or match.start() < line_end
    ]
    # most text follows the first on its line; the last may stand before the next line's answer
    ends = {starts[0], starts[-1]} if starts else set()
    return _FORM * any(_CLOSE in completion[end:].partition("\n")[0] for end in ends)


def tags(completion: str, **_: Any) -> float:
    """Up to 0.5, an eighth for each tag that occurs once beside its line break, less 0.001 for each
    character behind the answer; negative where much follows."""
    value = 0.0
    for tag in ("<reasoning>\n", "\n</reasoning>\n"):
        value += _TAG * (completion.count(tag) == 1)
    if completion.count("\n<answer>\n") == 1:
        value += _TAG
        value -= len(completion.split("\n</answer>\n")[-1]) * _PER_CHARACTER
    if completion.count("\n</answer>") == 1:
        value += _TAG
        value -= (len(completion.split("\n</answer>")[-1]) - 1) * _PER_CHARACTER
    return value


def math500_correct(completion: str, answer: str, **_: Any) -> float:
    r"""2 if the last \boxed{}, or without a closed one the whole text, is the answer after d1's
    clean-up, else 0. answer: LaTeX, or a solution with a \boxed{}."""
    given, truth = last_box(completion), last_box(answer)
    if truth is None:  # d1 stops here; nothing can be right
        return 0.0
    return _RIGHT * same_text(completion if given is None else given, truth)


def boxed_answer(completion: str, **_: Any) -> float:
    r"""0.75 for an <answer> and 0.25 without: \boxed{} earns nothing, as d1 misspells it."""
    parts = completion.split(_OPEN, 2)
    inside = parts[1].partition(_CLOSE)[0] if len(parts) > 1 else completion
    return _FORM * ((len(parts) > 1) + (1.0 if _MISSPELT_BOX in inside else 0.5))


def countdown(completion: str, numbers: Sequence[int], target: int, **_: Any) -> float:
    """1 for the target's value from the numbers, each once, 0.1 for any other closed <answer>, 0
    without one. `**` and `//` are operators, and a value within 0.00001 is right."""
    expression = _last_closed(completion)
    if expression is None:
        return 0.0
    return 1.0 if equals(expression, numbers, target) else 0.1


def sudoku(completion: str, puzzle: str, solution: str | None = None, **_: Any) -> float:
    """Share of empty cells that the digits of the last closed <answer> fill with the solution's,
    padded with 0, cut to 16; 0 where puzzle or solution has not 16 characters."""
    answer = _last_closed(completion)
    empty = [i for i, clue in enumerate(puzzle[:CELLS]) if clue == "0"]
    if not answer or not empty or len(puzzle) < CELLS:
        return 0.0
    digits = "".join(character for character in answer if character.isdigit())
    if not digits:
        return 0.0
    filled = digits[:CELLS].ljust(CELLS, "0")
    keys = solutions(puzzle) if solution is None else (solution,)
    right = [sum(filled[i] == key[i] for i in empty) for key in keys if len(key) >= CELLS]
    return max(right, default=0) / len(empty)


def _tagged(text: str) -> str:
    """What stands between the last <answer> and the </answer> behind it; the whole text without."""
    return text.rpartition(_OPEN)[2].partition(_CLOSE)[0].strip()


def _last_closed(text: str) -> str | None:
    """The last of the <answer>...</answer> of a text, read from its beginning; None without one."""
    answer, at = None, 0
    while (start := text.find(_OPEN, at)) >= 0:
        end = text.find(_CLOSE, start + len(_OPEN))
        if end < 0:
            break
        answer, at = text[start + len(_OPEN) : end].strip(), end + len(_CLOSE)
    return answer
