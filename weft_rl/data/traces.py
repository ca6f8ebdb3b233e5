"""Reasoning traces as token ids with the answer marked."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from weft_rl.data.prompts import PromptStyle, chat_prompt, tagged_answer, trace_prompt
from weft_rl.data.records import fail
from weft_rl.data.schemas import Trace
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncation = Literal["drop", "cut_trace", "right"]

# A reasoning is cut between words; 20 characters, so that a text without blanks can be cut as well.
_PIECE = re.compile(r"\s*\S{1,20}|\s+")


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer; everything from prompt_length on is the answer.

    Raises ValueError for an answer of no tokens: its loss would be 0 and train nothing."""

    index: int  # place in the data set: seeds the example's masks
    ids: list[int]
    prompt_length: int

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_length < len(self.ids):
            raise ValueError(
                f"example {self.index}: {len(self.ids)} tokens, {self.prompt_length} of them "
                "prompt, leave no answer"
            )


class Encoded(NamedTuple):
    """Examples, and what became of the traces that were too long."""

    examples: list[Example]
    dropped: int = 0
    cut: int = 0


def encode_traces(
    traces: Iterable[Trace],
    tokenizer: "PreTrainedTokenizerBase",
    style: PromptStyle,
    end_id: int,
    max_length: int,
    truncation: Truncation = "drop",
    reserved_ids: Collection[int] = (),
    reject: Callable[[UserError], None] = fail,
) -> Encoded:
    """Token ids of each trace, at most max_length.

    The rendered prompt is a token prefix of the whole by construction, and the one end token is
    the last token of the answer: no padding, and no header after it. A longer trace is left out
    ("drop"), loses as many words from the middle of its reasoning as must go ("cut_trace"), or its
    last tokens, the end token among them ("right", as d1 does); it is left out as well where that
    would leave no answer, or where cutting all of the reasoning is not enough. reserved_ids: tokens
    that may stand in no record, the mask token and what ends an answer. A record with one of them,
    or without answer tokens, goes to `reject`."""
    examples: list[Example] = []
    dropped = cut = 0
    # a model may know end tokens that its tokenizer has no text for
    reserved = [text for text in tokenizer.convert_ids_to_tokens([*reserved_ids]) if text]
    for index, trace in enumerate(traces):
        prompt = prompt_ids(tokenizer, _prompt(style, trace), trace.history)
        answer = _answer_ids(tokenizer, style, trace)
        problem = _problem(trace, answer, reserved)
        if problem:
            reject(UserError(f"{trace.source}: {problem}; mend or remove the record"))
            continue
        answer.append(end_id)
        room = max_length - len(prompt)
        if len(answer) > room:
            answer = _fitted(answer, room, truncation, tokenizer, style, trace)
            dropped, cut = dropped + (not answer), cut + bool(answer)
        if answer:
            examples.append(Example(index, prompt + answer, len(prompt)))
    return Encoded(examples, dropped, cut)


def _problem(trace: Trace, answer: list[int], reserved: Sequence[str]) -> str:
    """Why a trace cannot be trained on; empty when it can."""
    texts = [trace.question, trace.reasoning or "", trace.answer]
    texts += [content for _, content in trace.history]
    found = [token for token in reserved if any(token in text for text in texts)]
    if found:
        return f"holds the token {found[0]}, which the model takes for a mask or an end"
    return "" if answer else "the tokenizer makes no tokens of its answer"


def _fitted(
    answer: list[int],
    room: int,
    truncation: Truncation,
    tokenizer: "PreTrainedTokenizerBase",
    style: PromptStyle,
    trace: Trace,
) -> list[int]:
    """What the policy leaves of a too long answer, at most `room` tokens; empty: left out."""
    if truncation == "right":
        return answer[: max(room, 0)]
    if truncation == "drop" or trace.reasoning is None:
        return []
    pieces = _PIECE.findall(trace.reasoning)
    best: list[int] = []
    # The most pieces that fit. Cutting text, not tokens: a seam is tokenised as any text is.
    low, high = 0, len(pieces) - 1
    while low <= high:
        kept = (low + high) // 2
        left = pieces[: (kept + 1) // 2] + pieces[len(pieces) - kept // 2 :]
        ids = _answer_ids(tokenizer, style, replace(trace, reasoning="".join(left)))
        if len(ids) < room:
            best, low = [*ids, answer[-1]], kept + 1
        else:
            high = kept - 1
    return best


def _prompt(style: PromptStyle, trace: Trace) -> str:
    # a chat says itself how it is to be answered
    return trace.question if trace.reasoning is None else trace_prompt(style, trace.question)


def _answer_ids(
    tokenizer: "PreTrainedTokenizerBase", style: PromptStyle, trace: Trace
) -> list[int]:
    chat = trace.reasoning is None
    text = trace.answer if chat else tagged_answer(style, trace.reasoning, trace.answer)
    return tokenizer.encode(text, add_special_tokens=False)


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", user: str, history: Iterable[tuple[str, str]] = ()
) -> list[int]:
    """Token ids of a prompt in the tokenizer's chat form, the assistant's header at its end.

    history: role and content of the turns before it."""
    text = tokenizer.apply_chat_template(
        chat_prompt(user, history), add_generation_prompt=True, tokenize=False
    )
    # the text holds the begin token already
    return tokenizer.encode(str(text), add_special_tokens=False)


def pad_answers(examples: Sequence[Example], pad_id: int, answer_length: int) -> list[Example]:
    """The examples with every answer filled up to `answer_length` tokens by pad_id, as pretraining
    on a fixed canvas has it: the model learns to end an answer early.

    Raises UserError for an answer that is longer."""
    padded = []
    for example in examples:
        missing = example.prompt_length + answer_length - len(example.ids)
        if missing < 0:
            raise UserError(
                f"sampler.gen_length={answer_length}: too short to pretrain on: an answer has "
                f"{len(example.ids) - example.prompt_length} tokens"
            )
        ids = example.ids + [pad_id] * missing
        padded.append(Example(example.index, ids, example.prompt_length))
    return padded
