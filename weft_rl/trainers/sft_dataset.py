"""Examples of a cold start from any dataset of rows."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from weft_rl.data.prompts import PromptStyle
from weft_rl.data.sft_examples import Example, Examples, Truncation, encode_traces
from weft_rl.data.text import TextEncoder
from weft_rl.data.trace_schemas import Think, Trace, trace_of
from weft_rl.diffusion.tensor_checks import IGNORED
from weft_rl.models.configuration import end_tokens

# Of packed or masked rows in TRL's form.
_NOT_READ = ("position_ids", "seq_lengths", "completion_mask", "assistant_masks")
_COLUMNS = (
    "prompt and completion (texts or chats), messages, conversations, s1K's columns, or input_ids "
    "and labels"
)


class EncodingOptions(Protocol):
    """The options of a ColdStartConfig that shape examples."""

    max_length: int | None
    truncation: Truncation

    @property
    def think(self) -> Think:
        """Treatment of <think> in chat answers."""
        ...

    @property
    def prompt_style(self) -> PromptStyle:
        """Instruction before questions of s1K records."""
        ...


@dataclass(frozen=True)
class LabelledExample(Example):
    """An example whose trained tokens may lie anywhere: `given` labels, -100 for the others."""

    given: list[int]

    @property
    def labels(self) -> list[int]:
        """The given labels."""
        return self.given


def encode_dataset(
    name: str,
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    model_config: Any,
    options: EncodingOptions,
) -> Sequence[Example]:
    """Tokenize the rows of a dataset; rows without a fitting length are left out.

    dataset: Examples (returned unchanged) or rows with the columns of ColdStartTrainer. Raises
    ValueError naming the row for missing columns, for rows without a token to train on, and if no
    row is left."""
    if isinstance(dataset, Examples):
        return dataset
    if isinstance(dataset, str):
        raise ValueError(f"{name}={dataset!r}: load it first, with datasets.load_dataset")
    rows = [*dataset]
    if not rows:
        raise ValueError(f"{name}: has no rows")
    if rows and isinstance(rows[0], Example):
        return rows
    limit = options.max_length or getattr(model_config, "max_position_embeddings", 2**31)
    end_id = end_of_turn(tokenizer, model_config)
    encoder = None if tokenizer is None else TextEncoder(tokenizer)
    encoded: list[Example] = []
    traces: dict[int, Trace] = {}  # row -> chat or s1K record, tokenized together below
    for index, row in enumerate(rows):
        where = f"{name}, row {index}"
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: must be a dictionary, got {type(row).__name__}")
        try:
            if "input_ids" in row:
                encoded += _labelled(index, row, limit, options.truncation)
            elif tokenizer is None or encoder is None:
                raise ValueError("texts need a tokenizer; give processing_class")
            elif isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
                encoded += _texts(index, row, encoder, tokenizer, end_id, limit, options.truncation)
            else:
                traces[index] = _trace(row, where, tokenizer, options.think)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if traces and tokenizer is not None:
        style, places = options.prompt_style, [*traces]
        result = encode_traces(traces.values(), tokenizer, style, end_id, limit, options.truncation)
        encoded += [
            Example(places[each.index], each.ids, each.prompt_length) for each in result.examples
        ]
        encoded.sort(key=lambda example: example.index)
    _check_left_out(name, len(encoded), len(rows), limit)
    if any(isinstance(example, LabelledExample) for example in encoded):
        return encoded
    return Examples(encoded)


def end_of_turn(tokenizer: PreTrainedTokenizerBase | None, model_config: Any) -> int:
    """Return the token that ends an answer.

    It is eot_token_id, else the tokenizer's end token, else the first one of the model's."""
    ends, own = end_tokens(model_config), getattr(tokenizer, "eos_token_id", None)
    turn = getattr(model_config, "eot_token_id", None)
    candidates: list[Any] = [*(token for token in (turn, own) if token in ends), *ends, own]
    return candidates[0]


def pad_token(tokenizer: PreTrainedTokenizerBase | None, model_config: Any) -> int:
    """Return the model's pad token, or the end of a turn if it has none."""
    pad = getattr(model_config, "pad_token_id", None)
    return end_of_turn(tokenizer, model_config) if pad is None else int(pad)


def _check_left_out(name: str, encoded: int, rows: int, limit: int) -> None:
    if not encoded:
        raise ValueError(
            f"{name}: none of the {rows} rows has at most {limit} tokens; raise max_length or "
            "use truncation='right'"
        )
    if encoded < rows:
        warnings.warn(
            f"{name}: {rows - encoded} of {rows} rows are left out, longer than "
            f"{limit} tokens; raise max_length, or use truncation='right'",
            stacklevel=3,
        )


def _labelled(
    index: int, row: Mapping[str, Any], limit: int, truncation: Truncation
) -> list[Example]:
    if "labels" not in row:
        raise ValueError(f"has input_ids and no labels ({IGNORED} for the prompt)")
    unusable = [column for column in _NOT_READ if row.get(column) is not None]
    if unusable:
        raise ValueError(
            f"column {unusable[0]!r} is not read; give one sequence per row, with labels of "
            f"{IGNORED} for tokens that are not trained"
        )
    ids, labels = ([*map(int, row[name])] for name in ("input_ids", "labels"))
    visible = row.get("attention_mask", [1] * len(ids))
    if not len(ids) == len(labels) == len(visible):
        raise ValueError(
            f"input_ids has {len(ids)} tokens, labels {len(labels)}, attention_mask {len(visible)}"
        )
    kept = [i for i, seen in enumerate(visible) if seen]
    ids, labels = [ids[i] for i in kept], [labels[i] for i in kept]
    wrong = [i for i, label in enumerate(labels) if label not in (IGNORED, ids[i])]
    if wrong:
        raise ValueError(
            f"labels[{wrong[0]}] is {labels[wrong[0]]} and its input id {ids[wrong[0]]}: a masked "
            f"diffusion model predicts the token itself; give the same id or {IGNORED}"
        )
    if len(ids) > limit:
        if truncation != "right":
            return []
        ids, labels = ids[:limit], labels[:limit]
    trained = [i for i, label in enumerate(labels) if label != IGNORED]
    if not trained:
        raise ValueError(f"labels are all {IGNORED}: there is no token to train on")
    if trained == [*range(trained[0], len(ids))]:
        return [Example(index, ids, trained[0])]
    return [LabelledExample(index, ids, trained[0], labels)]


def _texts(
    index: int,
    row: Mapping[str, Any],
    encoder: TextEncoder,
    tokenizer: PreTrainedTokenizerBase,
    end_id: int,
    limit: int,
    truncation: Truncation,
) -> list[Example]:
    prompt = encoder.context(row["prompt"])
    # TRL's data sets may spell the end token, and templates a newline after it; it is added here
    completion = row["completion"]
    for token in dict.fromkeys((tokenizer.eos_token, tokenizer.convert_ids_to_tokens(end_id))):
        if token is not None:
            completion = completion.removesuffix(f"{token}\n").removesuffix(str(token))
    answer = encoder.texts([completion])[0]
    if not answer:
        raise ValueError("the completion has no tokens")
    ids = [*prompt, *answer, end_id]
    if truncation == "right":
        ids = ids[:limit]
    return [Example(index, ids, len(prompt))] if len(prompt) < len(ids) <= limit else []


def _trace(
    row: Mapping[str, Any], where: str, tokenizer: PreTrainedTokenizerBase, think: Think
) -> Trace:
    if "prompt" in row and "completion" in row:
        prompt, completion = row["prompt"], row["completion"]
        if not (isinstance(prompt, list) and isinstance(completion, list)):
            raise ValueError("prompt and completion must both be texts, or both lists of messages")
        row = {"messages": [*prompt, *completion]}
    try:
        trace = trace_of(row, where, think)
    except ValueError as error:
        if str(error).startswith("columns "):
            raise ValueError(f"columns {', '.join(map(str, row))}; give {_COLUMNS}") from error
        raise
    if tokenizer.chat_template is None:
        raise ValueError(
            "the tokenizer has no chat template; set tokenizer.chat_template, or give prompt and "
            "completion as texts"
        )
    return trace
