"""Reasoning traces as token ids with the answer marked."""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

from weft_rl.data.prompts import PromptStyle, chat_prompt, tagged_answer, trace_prompt
from weft_rl.data.records import fail
from weft_rl.data.text import TextEncoder
from weft_rl.data.trace_schemas import Trace
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncation = Literal["drop", "cut_trace", "right"]

# A reasoning is cut between words; 20 characters, so that a text without blanks can be cut as well.
_PIECE = re.compile(r"\s*\S{1,20}|\s+")
# Traces tokenized together, on all cores: enough to keep them busy, few beside a data set.
_BATCH = 512


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


class Examples(Sequence[Example]):
    """Examples kept in arrays: 4 bytes a token and 20 an example, where lists take 36 a token."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self._ids, self._ends = array("i"), array("q", [0])
        self._prompt_lengths, self._indices = array("i"), array("q")
        for example in examples:
            self.append(example)

    def append(self, example: Example) -> None:
        """Add an example at the end."""
        self._ids.extend(example.ids)
        self._ends.append(len(self._ids))
        self._prompt_lengths.append(example.prompt_length)
        self._indices.append(example.index)

    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [end - start for start, end in zip(self._ends, self._ends[1:], strict=False)]

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> "Examples": ...
    def __getitem__(self, place: int | slice) -> "Example | Examples":
        if isinstance(place, slice):
            return Examples(self[i] for i in range(len(self))[place])
        i = range(len(self))[place]
        ids = self._ids[self._ends[i] : self._ends[i + 1]].tolist()
        return Example(self._indices[i], ids, self._prompt_lengths[i])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]


class Encoded(NamedTuple):
    """Examples, and what became of the traces that were too long."""

    examples: Examples
    dropped: int = 0
    cut: int = 0
    dropped_tokens: int = 0  # of traces left out, and what was cut off the others
    without_reasoning: int = 0  # left out of "cut_trace", which cuts a reasoning only


def encode_traces(
    traces: Iterable[Trace],
    tokenizer: "PreTrainedTokenizerBase",
    style: PromptStyle,
    end_id: int,
    max_length: int,
    truncation: Truncation = "drop",
    reject: Callable[[UserError], None] = fail,
) -> Encoded:
    """Token ids of each trace, at most max_length.

    The rendered prompt is a token prefix of the whole by construction, and the one end token is
    the last token of the answer: no padding, and no header after it. A longer trace is left out
    ("drop"), loses as many words from the middle of its reasoning as must go ("cut_trace"), or its
    last tokens, the end token among them ("right", as d1 does); it is left out as well where that
    would leave no answer, where cutting all of the reasoning is not enough, and where there is no
    reasoning. A trace without answer tokens, or that the chat template or the tokenizer has no
    tokens for, goes to `reject`."""
    encoder, examples = TextEncoder(tokenizer), Examples()
    dropped = cut = lost = without_reasoning = 0
    for index, (trace, ids) in enumerate(_tokenized(traces, encoder, style)):
        if isinstance(ids, str):
            reject(UserError(f"{trace.source}: {ids}; mend or remove the record"))
            continue
        prompt, answer = ids[0], [*ids[1], end_id]
        room = max_length - len(prompt)
        if len(answer) > room:
            fitted = _fitted(answer, room, truncation, encoder, style, trace)
            dropped, cut = dropped + (not fitted), cut + bool(fitted)
            lost += len(answer) - len(fitted) if fitted else len(prompt) + len(answer)
            without_reasoning += truncation == "cut_trace" and trace.reasoning is None
            answer = fitted
        if answer:
            examples.append(Example(index, prompt + answer, len(prompt)))
    return Encoded(examples, dropped, cut, lost, without_reasoning)


def _tokenized(
    traces: Iterable[Trace], encoder: TextEncoder, style: PromptStyle
) -> Iterator[tuple[Trace, tuple[list[int], list[int]] | str]]:
    """Each trace with the ids of prompt and answer, or with what is wrong with it."""
    every = iter(traces)
    while batch := [*islice(every, _BATCH)]:
        yield from zip(batch, _ids(batch, encoder, style), strict=True)


def _ids(
    traces: Sequence[Trace], encoder: TextEncoder, style: PromptStyle
) -> list[tuple[list[int], list[int]] | str]:
    try:
        return _ids_of_all(traces, encoder, style)
    except ValueError as error:  # of one of them
        if len(traces) == 1:
            return [str(error)]
        return [ids for trace in traces for ids in _ids([trace], encoder, style)]


def _ids_of_all(
    traces: Sequence[Trace], encoder: TextEncoder, style: PromptStyle
) -> list[tuple[list[int], list[int]] | str]:
    chats = [chat_prompt(_prompt(style, trace), trace.history) for trace in traces]
    answers = encoder.texts([_answer(style, trace) for trace in traces])
    return [
        (prompt, answer) if answer else "the tokenizer makes no tokens of its answer"
        for prompt, answer in zip(encoder.chats(chats), answers, strict=True)
    ]


def _fitted(
    answer: list[int],
    room: int,
    truncation: Truncation,
    encoder: TextEncoder,
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
        (ids,) = encoder.texts([_answer(style, replace(trace, reasoning="".join(left)))])
        if len(ids) < room:
            best, low = [*ids, answer[-1]], kept + 1
        else:
            high = kept - 1
    return best


def _prompt(style: PromptStyle, trace: Trace) -> str:
    # a chat says itself how it is to be answered
    is_chat = trace.reasoning is None or trace.think == "keep"
    return trace.question if is_chat else trace_prompt(style, trace.question)


def _answer(style: PromptStyle, trace: Trace) -> str:
    if trace.reasoning is None:
        return trace.answer
    if trace.think == "keep":
        return f"<think>{trace.reasoning}</think>{trace.answer}"
    return tagged_answer(style, trace.reasoning, trace.answer)


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", user: str, history: Iterable[tuple[str, str]] = ()
) -> list[int]:
    """Token ids of a prompt in the tokenizer's chat form, the assistant's header at its end.

    history: role and content of the turns before it. Raises ValueError as TextEncoder.chats."""
    return TextEncoder(tokenizer).chats([chat_prompt(user, history)])[0]


def pad_answers(examples: Sequence[Example], pad_id: int, answer_length: int) -> Examples:
    """The examples with every answer filled up to `answer_length` tokens by pad_id, as pretraining
    on a fixed canvas has it: the model learns to end an answer early.

    Raises UserError for an answer that is longer."""
    padded = Examples()
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
