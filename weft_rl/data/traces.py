"""Reasoning traces in s1K's schema, as token ids with the answer marked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weft_rl.data.prompts import PromptStyle, chat_prompt, tagged_answer, trace_prompt
from weft_rl.data.records import read_jsonl
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Trace:
    """One question with its reasoning and answer."""

    question: str
    reasoning: str
    answer: str
    source: str  # file:line, or how it was generated; named when something is wrong with it


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer; everything from prompt_length on is the answer."""

    index: int  # place in the data set: seeds the example's masks
    ids: list[int]
    prompt_length: int


def read_traces(path: Path) -> list[Trace]:
    """The traces of a JSONL file in s1K's schema.

    A record has `question` and `attempt` (text) and `thinking_trajectories` (a list of texts, of
    which the first is used). Raises UserError naming file and line for anything else."""
    traces: list[Trace] = []
    for line, row in read_jsonl(path):
        where = f"{path}:{line}"
        texts = row.get("thinking_trajectories")
        reasoning = texts[0] if isinstance(texts, list) and texts else None
        parts = {
            "question": row.get("question"),
            "thinking_trajectories": reasoning,
            "attempt": row.get("attempt"),
        }
        for name, value in parts.items():
            if not isinstance(value, str) or not value.strip():
                raise UserError(
                    f"{where}: {name} must be a text that is not empty"
                    " (a list of such texts for thinking_trajectories); mend or remove the record"
                )
        traces.append(Trace(str(row["question"]), str(reasoning), str(row["attempt"]), where))
    return traces


def encode_traces(
    traces: Iterable[Trace],
    tokenizer: "PreTrainedTokenizerBase",
    style: PromptStyle,
    end_id: int,
    max_length: int,
) -> tuple[list[Example], int]:
    """Token ids of each trace, and how many traces were dropped for exceeding max_length tokens.

    The rendered prompt is a token prefix of the whole by construction, and the one end token is
    the last token of the answer: no padding, and no header after it."""
    examples: list[Example] = []
    dropped = 0
    for index, trace in enumerate(traces):
        prompt = trace_prompt(style, trace.question)
        ids = prompt_ids(tokenizer, prompt)
        answer = tagged_answer(style, trace.reasoning, trace.answer)
        whole = [*ids, *tokenizer.encode(answer, add_special_tokens=False), end_id]
        if len(whole) > max_length:
            dropped += 1
        else:
            examples.append(Example(index, whole, len(ids)))
    return examples, dropped


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", user: str) -> list[int]:
    """Token ids of a prompt in the tokenizer's chat form, the assistant's header at its end."""
    text = tokenizer.apply_chat_template(
        chat_prompt(user), add_generation_prompt=True, tokenize=False
    )
    # the text holds the begin token already
    return tokenizer.encode(str(text), add_special_tokens=False)


def pad_answers(examples: Sequence[Example], pad_id: int, answer_length: int) -> list[Example]:
    """The examples with every answer filled up to `answer_length` tokens by pad_id, as pretraining
    on a fixed canvas has it: the model learns to end an answer early.

    Raises ValueError for an answer that is longer."""
    padded = []
    for example in examples:
        missing = example.prompt_length + answer_length - len(example.ids)
        if missing < 0:
            raise ValueError(f"example {example.index}: answer exceeds {answer_length} tokens")
        ids = example.ids + [pad_id] * missing
        padded.append(Example(example.index, ids, example.prompt_length))
    return padded
