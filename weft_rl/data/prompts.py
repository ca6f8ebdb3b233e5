"""Prompt texts and answer tags."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from weft_rl.rewards.sudoku_grid import SIZE

PromptStyle = Literal["tiny", "chat", "d1", "d1_eval"]
# Per style, a function from a record's fields to the user message.
Prompts = Mapping[PromptStyle, Callable[[Mapping[str, Any]], str]]

# str.format templates, verbatim from d1 so that scores are comparable (dllm-reasoning/d1,
# Apache-2.0): diffu-grpo/data_utils.py, SFT/sft_train.py, and eval/*.py for d1_eval.
_FORM = "Respond in the following format:\n<reasoning>\n%s\n</reasoning>\n<answer>\n%s\n</answer>"
_D1_FORMAT = f"\n{_FORM % ('...', '...')}\n"
_D1_SFT_FORMAT = f"\n{_FORM % ('Your reasoning here', '...')}\n"
_D1_EVAL_FORMAT = _FORM % ("Your reasoning here", "\\boxed{{...}}")
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
    "final answer in a \\boxed{{}}. "
)
_D1_EVAL_COUNTDOWN = (
    "Using only the provided numbers, create an arithmetic expression that evaluates to exactly "
    "the provided target number. You may use the operations +, -, *, and / as needed, but each "
    "number must be used exactly once. Think step-by-step. After reasoning, provide only your "
    "final expression inside \\boxed{{}} tags without including an equals sign or the target "
    "number. For example: \\boxed{{a + b * c}}"
)

# Style chat: short messages for small models.
_CHAT_FORM = "\nReply as\n<reasoning>steps</reasoning>\n<answer>%s</answer>"
_CHAT_SUDOKU = (
    "Fill each 0 of this 4x4 Sudoku. Every row, column and 2x2 box has the digits 1 to 4.\n{rows}"
)
_CHAT_COUNTDOWN = "Make {target} from the numbers {numbers} with + - * /. Use each number once."

_SUDOKU = f"{_D1_SUDOKU}\n\nSolve the following Sudoku puzzle: {{puzzle}}\n"
SUDOKU: Prompts = {
    "tiny": "Sudoku:{puzzle}".format_map,
    "chat": lambda fields: (_CHAT_SUDOKU + _CHAT_FORM % "four rows").format(
        rows=sudoku_rows(fields["puzzle"])
    ),
    "d1": _SUDOKU.format_map,
    "d1_eval": _SUDOKU.format_map,
}
COUNTDOWN: Prompts = {
    "tiny": lambda fields: f"Countdown: {' '.join(map(str, fields['numbers']))}={fields['target']}",
    "chat": lambda fields: (_CHAT_COUNTDOWN + _CHAT_FORM % "expression").format(
        target=fields["target"], numbers=", ".join(map(str, fields["numbers"]))
    ),
    "d1": (_D1_FORMAT + _D1_COUNTDOWN).format_map,
    "d1_eval": (
        f"{_D1_EVAL_COUNTDOWN}{_D1_EVAL_FORMAT}\n\nNumbers: {{numbers}}\nTarget: {{target}}"
    ).format_map,
}
GSM8K: Prompts = {
    "chat": ("{question}" + _CHAT_FORM % "number").format_map,
    "d1": f"{_D1_FORMAT}\n\n{{question}}".format_map,
    "d1_eval": f"{_D1_MATH}\n{_D1_EVAL_FORMAT}\n\n{{question}}".format_map,
}
MATH500: Prompts = {
    "chat": ("{problem}" + _CHAT_FORM % "result").format_map,
    "d1": f"{_D1_FORMAT}\n\n{_D1_MATH}\n\n{{problem}}".format_map,
    # missing space and unmatched quotation mark as published
    "d1_eval": f'{_D1_MATH.rstrip()}\n{_D1_EVAL_FORMAT}" \n\n\n{{problem}}'.format_map,
}

PREFILL: Mapping[PromptStyle, str] = {
    "tiny": "",
    "chat": "",
    "d1": "",
    "d1_eval": "<reasoning>",
}


def sudoku_rows(grid: str) -> str:
    """Return the 16 digits of a grid as four lines."""
    return "\n".join(grid[i : i + SIZE] for i in range(0, len(grid), SIZE))


def trace_prompt(style: PromptStyle, question: str) -> str:
    """Return the user message before a reasoning trace."""
    if style == "chat":
        return question + _CHAT_FORM % "result"
    return question if style == "tiny" else f"{_D1_SFT_FORMAT}\n\n{question}"


def tagged_answer(style: PromptStyle, reasoning: str, answer: str) -> str:
    """Return the assistant message: reasoning and answer between their tags."""
    between = "" if style == "tiny" else "\n"  # the tiny vocabulary has no line break
    return f"<reasoning>{reasoning}</reasoning>{between}<answer>{answer}</answer>"


@dataclass(frozen=True)
class PromptFormat:
    """Wording of a task's prompts. template: over a record's fields, instead of the style's."""

    style: PromptStyle
    template: str | None = None
    system: str | None = None  # message before the user's


def chat_prompt(
    user: str, history: Iterable[tuple[str, str]] = (), system: str | None = None
) -> list[dict[str, str]]:
    """Return a chat that ends with the user; history: (role, content) of earlier turns."""
    history = [("system", system), *history] if system else history
    return [{"role": role, "content": content} for role, content in (*history, ("user", user))]
