r"""d1's training rewards, with their values, weights and quirks.

A correct answer gives 2, and `tags` can be negative. White space counts where d1's patterns name
it. Answers are compared as text, and the last <answer> is read. Time is linear in the text.
Source: dllm-reasoning/d1, diffu-grpo/reward_func.py and math500_utils.py, reimplemented from their
behavior."""

import re
from collections.abc import Sequence
from typing import Any

from weft_rl.rewards.d1_scorer.evaluation import equals, last_box, same_text
from weft_rl.rewards.sudoku import solutions
from weft_rl.rewards.sudoku_grid import CELLS

_OPEN, _CLOSE = "<answer>", "</answer>"
_RIGHT, _FORM, _TAG = 2.0, 0.5, 0.125
# d1's penalty per character after the answer, applied once per spelling of the end tag.
_PER_CHARACTER = 0.001
_BETWEEN = re.compile(r"</reasoning>\s*+<answer>")
_MISSPELT_BOX = "\boxed"  # d1 writes "\boxed" in a non-raw Python string: a backspace and "oxed"


def gsm8k_correct(completion: str, answer: str | float | None, **_: Any) -> float:
    """Return 2 if the answer text equals `answer` (the part after any ####), else 0."""
    if answer is None:
        return 0.0
    truth = answer if isinstance(answer, str) else f"{answer:.15g}"
    if "####" in truth:
        truth = truth.split("####")[1].strip()
    return _RIGHT * (_tagged(completion) == truth)


def integer(completion: str, **_: Any) -> float:
    """Return 0.5 if the answer is only digits, else 0: "-5" and "1,000" do not count."""
    return _FORM * _tagged(completion).isdigit()


def strict_format(completion: str, **_: Any) -> float:
    """Return 0.5 for four tags on separate lines with one line each of reasoning and answer."""
    match completion.split("\n", 8):
        case ["<reasoning>", _, "</reasoning>", "<answer>", _, "</answer>", "", *more]:
            return _FORM * (more in ([], [""]))
    return 0.0


def soft_format(completion: str, **_: Any) -> float:
    """Return 0.5 if the text begins with one-line <reasoning> followed by a one-line answer."""
    opening = "<reasoning>"
    if not completion.startswith(opening):
        return 0.0
    line_end = completion.find("\n")
    starts = [
        match.end()
        for match in _BETWEEN.finditer(completion, len(opening))
        if line_end < 0 or match.start() < line_end
    ]
    # only the first and the last start can match
    ends = {starts[0], starts[-1]} if starts else set()
    return _FORM * any(_CLOSE in completion[end:].partition("\n")[0] for end in ends)


def tags(completion: str, **_: Any) -> float:
    """Return 0.125 per unique tag with its line break, minus 0.001 per character after the answer.

    Range: up to 0.5; negative if long text follows the answer."""
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
    r"""Return 2 if the last \boxed{}, or the text, equals `answer` (LaTeX or solution), else 0."""
    given, truth = last_box(completion), last_box(answer)
    if truth is None:  # d1 raises here; no answer can be correct
        return 0.0
    return _RIGHT * same_text(completion if given is None else given, truth)


def boxed_answer(completion: str, **_: Any) -> float:
    r"""Return 0.75 with an <answer>, else 0.25: d1 misspells \boxed{}, so it earns nothing."""
    parts = completion.split(_OPEN, 2)
    inside = parts[1].partition(_CLOSE)[0] if len(parts) > 1 else completion
    return _FORM * ((len(parts) > 1) + (1.0 if _MISSPELT_BOX in inside else 0.5))


def countdown(completion: str, numbers: Sequence[int], target: int, **_: Any) -> float:
    """Return 1 for the target's value (within 0.00001), 0.1 for other closed <answer>, else 0."""
    expression = _last_closed(completion)
    if expression is None:
        return 0.0
    return 1.0 if equals(expression, numbers, target) else 0.1


def sudoku(completion: str, puzzle: str, solution: str | None = None, **_: Any) -> float:
    """Return the share of empty cells that the last closed <answer> fills correctly.

    Digits are padded with 0 and cut to 16; 0 unless puzzle and solution have 16 characters."""
    answer = _last_closed(completion)
    empty = [i for i, clue in enumerate(puzzle[:CELLS]) if clue == "0"]
    digits = "".join(character for character in answer or "" if character.isdigit())
    if not digits or not empty or len(puzzle) < CELLS:
        return 0.0
    filled = digits[:CELLS].ljust(CELLS, "0")
    keys = solutions(puzzle) if solution is None else (solution,)
    right = [sum(filled[i] == key[i] for i in empty) for key in keys if len(key) >= CELLS]
    return max(right, default=0) / len(empty)


def _tagged(text: str) -> str:
    return text.rpartition(_OPEN)[2].partition(_CLOSE)[0].strip()


def _last_closed(text: str) -> str | None:
    """Content of the last closed <answer>, scanned from the beginning; None without one."""
    closed = text[: text.rfind(_CLOSE) + len(_CLOSE)]  # every tag in it is closed: linear time
    answers = re.findall(rf"{_OPEN}(.*?){_CLOSE}", closed, re.DOTALL)
    return answers[-1].strip() if answers else None
