"""Prompt texts and answer tags: the one place that spells them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from weft_rl.errors import UserError

PromptStyle = Literal["tiny", "d1", "d1_eval"]

# Wording kept verbatim from d1 (dllm-reasoning/d1, Apache-2.0), so that scores compare with the
# literature's: d1's diffu-grpo/data_utils.py and SFT/sft_train.py, and eval/*.py for d1_eval.
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
_D1_MATH = (
    "You are a math expert. You will be given a question to solve. Solve it step by step. Wrap the "
    "final answer in a \\boxed{}. "
)
_D1_EVAL_FORMAT = (
    "Respond in the following format:\n<reasoning>\nYour reasoning here\n</reasoning>\n"
    "<answer>\n\\boxed{...}\n</answer>"
)
_D1_EVAL_COUNTDOWN = (
    "Using only the provided numbers, create an arithmetic expression that evaluates to exactly "
    "the provided target number. You may use the operations +, -, *, and / as needed, but each "
    "number must be used exactly once. Think step-by-step. After reasoning, provide only your "
    "final expression inside \\boxed{} tags without including an equals sign or the target number. "
    "For example: \\boxed{a + b * c}"
)

# What the prompt already says of the answer. d1's evaluation begins the reasoning itself.
PREFILL: Mapping[PromptStyle, str] = {"tiny": "", "d1": "", "d1_eval": "<reasoning>"}

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


def _d1_gsm8k(fields: Mapping[str, Any]) -> str:
    return f"{_D1_FORMAT}\n\n{fields['question']}"


def _d1_math500(fields: Mapping[str, Any]) -> str:
    return f"{_D1_FORMAT}\n\n{_D1_MATH}\n\n{fields['problem']}"


def _d1_eval_countdown(fields: Mapping[str, Any]) -> str:
    question = f"Numbers: {list(fields['numbers'])}\nTarget: {fields['target']}"
    return f"{_D1_EVAL_COUNTDOWN}{_D1_EVAL_FORMAT}\n\n{question}"


def _d1_eval_gsm8k(fields: Mapping[str, Any]) -> str:
    return f"{_D1_MATH}\n{_D1_EVAL_FORMAT}\n\n{fields['question']}"


def _d1_eval_math500(fields: Mapping[str, Any]) -> str:
    # no blank before the line break, and a quotation mark that nothing opens: as published
    return f'{_D1_MATH.rstrip()}\n{_D1_EVAL_FORMAT}" \n\n\n{fields["problem"]}'


# By style and task; a task of one's own adds its own, see docs/tasks.md.
PROMPTS: dict[tuple[PromptStyle, str], Callable[[Mapping[str, Any]], str]] = {
    ("tiny", "sudoku"): _tiny_sudoku,
    ("tiny", "countdown"): _tiny_countdown,
    ("d1", "sudoku"): _d1_sudoku,
    ("d1", "countdown"): _d1_countdown,
    ("d1", "gsm8k"): _d1_gsm8k,
    ("d1", "math500"): _d1_math500,
    ("d1_eval", "sudoku"): _d1_sudoku,
    ("d1_eval", "countdown"): _d1_eval_countdown,
    ("d1_eval", "gsm8k"): _d1_eval_gsm8k,
    ("d1_eval", "math500"): _d1_eval_math500,
}


def task_prompt(style: PromptStyle, task: str, fields: Mapping[str, Any]) -> str:
    """What the user says to pose a problem, from the fields of its record.

    Raises UserError for a task that the style has no words for."""
    if (style, task) not in PROMPTS:
        styles = [name for name, other in PROMPTS if other == task]
        raise UserError(
            f"prompt_style={style}: has no prompt for task={task}; use {' or '.join(styles)}"
        )
    return PROMPTS[style, task](fields)


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
