"""Tokenized reasoning traces with prompt and answer lengths."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from weft_rl.data.prompts import PromptStyle, chat_prompt, tagged_answer, trace_prompt
from weft_rl.data.rejects import Reject, fail
from weft_rl.data.text import TextEncoder
from weft_rl.data.trace_schemas import Trace
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncation = Literal["drop", "cut_trace", "right"]
Ids = tuple[list[int], list[int]]  # prompt and answer

# Reasoning is cut between words, or every 20 characters in text without spaces.
_PIECE = re.compile(r"\s*\S{1,20}|\s+")
_BATCH = 512  # traces per tokenizer batch: keeps all cores busy with little memory


@dataclass(frozen=True)
class Example:
    """Token ids; the answer begins at prompt_length. Raises ValueError for an empty answer."""

    index: int  # in the data set; seeds the example's masks
    ids: list[int]
    prompt_length: int

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_length < len(self.ids):
            sizes = f"{len(self.ids)} tokens with a prompt of {self.prompt_length}"
            raise ValueError(f"example {self.index}: no answer in {sizes}")

    @property
    def labels(self) -> list[int]:
        """Token ids with transformers' label of ignored tokens, -100, for the prompt."""
        return [-100] * self.prompt_length + self.ids[self.prompt_length :]


class Examples(Sequence[Example]):
    """Examples with 4 bytes per token; a list takes 36."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self._rows: list[tuple[int, array[int], int]] = []
        for example in examples:
            self.append(example)

    def append(self, example: Example) -> None:
        """Append an example."""
        self._rows.append((example.index, array("i", example.ids), example.prompt_length))

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example."""
        return [len(ids) for _, ids, _ in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        index, ids, prompt_length = self._rows[place]
        return Example(index, ids.tolist(), prompt_length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]


class Encoded(NamedTuple):
    """Encoded examples and statistics of traces over the length limit."""

    examples: Examples
    dropped: int = 0
    cut: int = 0
    dropped_tokens: int = 0  # of skipped traces, and those cut from the others
    without_reasoning: int = 0  # skipped by "cut_trace", which cuts reasoning only


def encode_traces(
    traces: Iterable[Trace],
    tokenizer: "PreTrainedTokenizerBase",
    style: PromptStyle,
    end_id: int,
    max_length: int,
    truncation: Truncation = "drop",
    reject: Reject = fail,
) -> Encoded:
    """Tokenize each trace to at most max_length tokens.

    The rendered prompt is a token prefix of the example; the only end token is the last answer
    token. Longer traces: "drop" skips them, "cut_trace" removes words from the middle of the
    reasoning, "right" truncates as d1 does, including the end token. Traces that still do not fit,
    have no reasoning or keep no answer are skipped. Traces without answer tokens, or that the
    template or tokenizer cannot encode, go to `reject`."""
    encoder, examples = TextEncoder(tokenizer), Examples()
    dropped = cut = lost = without_reasoning = 0
    for index, (trace, ids) in enumerate(_tokenized(traces, encoder, style)):
        if isinstance(ids, ValueError):
            reject(UserError(f"{trace.source}: {ids}; fix or remove the record"))
            continue
        prompt, answer = ids[0], [*ids[1], end_id]
        room = max_length - len(prompt)
        if len(answer) > room:
            kept = answer[: max(room, 0)] if truncation == "right" else []
            if truncation == "cut_trace" and trace.reasoning is not None:
                kept = _with_cut_reasoning(trace, trace.reasoning, room, encoder, style, end_id)
            dropped, cut = dropped + (not kept), cut + bool(kept)
            lost += len(answer) - len(kept) if kept else len(prompt) + len(answer)
            without_reasoning += truncation == "cut_trace" and trace.reasoning is None
            answer = kept
        if answer:
            examples.append(Example(index, prompt + answer, len(prompt)))
    return Encoded(examples, dropped, cut, lost, without_reasoning)


def _tokenized(
    traces: Iterable[Trace], encoder: TextEncoder, style: PromptStyle
) -> Iterator[tuple[Trace, Ids | ValueError]]:
    remaining = iter(traces)
    while batch := [*islice(remaining, _BATCH)]:
        ids = _ids_or_error(batch, encoder, style)
        if isinstance(ids, ValueError):  # of one trace in the batch
            each = [_ids_or_error([trace], encoder, style) for trace in batch]
            ids = [one if isinstance(one, ValueError) else one[0] for one in each]
        yield from zip(batch, ids, strict=True)


def _ids_or_error(
    traces: Sequence[Trace], encoder: TextEncoder, style: PromptStyle
) -> list[Ids] | ValueError:
    try:
        answers = encoder.texts([_answer(style, trace) for trace in traces])
        chats = [chat_prompt(_prompt(style, trace), trace.history) for trace in traces]
        if not all(answers):
            raise ValueError("the tokenizer makes no tokens of its answer")
        return [*zip(encoder.chats(chats), answers, strict=True)]
    except ValueError as error:
        return error


def _with_cut_reasoning(
    trace: Trace, reasoning: str, room: int, encoder: TextEncoder, style: PromptStyle, end_id: int
) -> list[int]:
    """Answer of at most `room` tokens without the middle of the reasoning; empty if none fits."""
    pieces = _PIECE.findall(reasoning)

    # cut before tokenization, so that the seam has regular tokens
    def answer(kept: int) -> list[int]:
        left = "".join(pieces[: (kept + 1) // 2] + pieces[len(pieces) - kept // 2 :])
        return [*encoder.texts([_answer(style, replace(trace, reasoning=left))])[0], end_id]

    too_many = bisect_left(range(len(pieces)), room + 1, key=lambda kept: len(answer(kept)))
    return answer(too_many - 1) if too_many else []


def _prompt(style: PromptStyle, trace: Trace) -> str:
    # a chat contains its own answer format
    is_chat = trace.reasoning is None or trace.think == "keep"
    return trace.question if is_chat else trace_prompt(style, trace.question)


def _answer(style: PromptStyle, trace: Trace) -> str:
    if trace.reasoning is None:
        return trace.answer
    if trace.think == "keep":
        return f"<think>{trace.reasoning}</think>{trace.answer}"
    return tagged_answer(style, trace.reasoning, trace.answer)
