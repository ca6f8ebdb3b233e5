"""Prompt texts and answer tags: the one place that spells them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

PromptStyle = Literal["tiny", "d1"]

# Wording kept verbatim from d1 (dllm-reasoning/d1, Apache-2.0), so that scores compare with the
# literature's: d1's diffu-grpo/data_utils.py and SFT/sft_train.py.
_D1_FORMAT = (
    "\nRespond in the following format:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n"
)
_D1_SFT_FORMAT = (
    "\nRespond in the following format:\n<reasoning>\nYour reasoning here\n</reasoning>\n"
    "<answer>\n...\n</answer>\n"
)
_D1_SUDOKU = (
    "\nPlease solve the following 4x4 Sudoku puzzle. The puzzle is provided as a 16-character "
    "string reading left-to-right, top-to-bottom, where '0' represents empty cells.\n\nRules:\n"
    "- Fill empty cells with digits 1-4\n- Each row must contain digits 1-4 exactly once\n"
    "- Each column must contain digits 1-4 exactly once\n"
    "- Each 2x2 box must contain digits 1-4 exactly once\n\n"
    "Important: Your solution must be a COMPLETE 16-character string with only the digits 1-4, "
    "representing your final solved grid.\n\nRespond in this exact format:\n<reasoning>\n"
    "Your step-by-step solving process\n</reasoning>\n<answer>\n"
    "[16-character solution string with no spaces or separators]\n</answer>\n"
)
_D1_COUNTDOWN = (
    "\nUsing only the numbers {numbers}, create an arithmetic expression that evaluates to "
    "exactly {target}. You must use all numbers from the list, and each number must be used "
    "exactly once. You may use the operations +, -, *, and / as needed. After reasoning, provide "
    "only your final expression inside <answer></answer> tags without including an equals sign or "
    "the target number. For example, if the numbers are [2, 3, 4] and the target is 5, a valid "
    "answer is: <answer>\n2*4-3\n</answer>"
)


# How the tiny world's reasoning names the cells of a 4x4 grid, row by row.
CELL_NAMES = [f"r{row}c{column}" for row in range(1, 5) for column in range(1, 5)]


def _tiny_sudoku(fields: Mapping[str, Any]) -> str:
    return f"Sudoku:{fields['puzzle']}"


def _tiny_countdown(fields: Mapping[str, Any]) -> str:
    return f"Countdown: {' '.join(map(str, fields['numbers']))}={fields['target']}"


def _d1_sudoku(fields: Mapping[str, Any]) -> str:
    return f"{_D1_SUDOKU}\n\nSolve the following Sudoku puzzle: {fields['puzzle']}\n"


def _d1_countdown(fields: Mapping[str, Any]) -> str:
    numbers = list(fields["numbers"])
    return _D1_FORMAT + _D1_COUNTDOWN.format(numbers=numbers, target=fields["target"])


_TASKS: dict[tuple[PromptStyle, str], Callable[[Mapping[str, Any]], str]] = {
    ("tiny", "sudoku"): _tiny_sudoku,
    ("tiny", "countdown"): _tiny_countdown,
    ("d1", "sudoku"): _d1_sudoku,
    ("d1", "countdown"): _d1_countdown,
}


def task_prompt(style: PromptStyle, task: str, fields: Mapping[str, Any]) -> str:
    """What the user says to pose a problem: sudoku {puzzle}, countdown {numbers, target}."""
    return _TASKS[style, task](fields)


def trace_prompt(style: PromptStyle, question: str) -> str:
    """What the user says before a reasoning trace."""
    return question if style == "tiny" else f"{_D1_SFT_FORMAT}\n\n{question}"


def tagged_answer(style: PromptStyle, reasoning: str, answer: str) -> str:
    """What the assistant says: the reasoning and the answer between their tags."""
    between = "" if style == "tiny" else "\n"  # the tiny vocabulary has no line break of its own
    return f"<reasoning>{reasoning}</reasoning>{between}<answer>{answer}</answer>"


def plain_answer(reasoning: str, answer: str) -> str:
    """The tiny world's answer with a blank in place of each tag, so that every token has the place
    that it has in a tagged answer."""
    return f" {reasoning}  {answer} "


def chat_prompt(user: str, history: Iterable[tuple[str, str]] = ()) -> list[dict[str, str]]:
    """A conversation that waits for the assistant; history: role and content of earlier turns."""
    return [{"role": role, "content": content} for role, content in (*history, ("user", user))]
