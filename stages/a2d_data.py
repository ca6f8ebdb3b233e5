"""Training sequences of stage a2d: chats or texts, split, then packed."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, disable_progress_bars
from trl import pack_dataset

from weft_rl.config.a2d import A2DConfig
from weft_rl.config.cold_start import DataConfig
from weft_rl.config.fields import require
from weft_rl.config.schema import RunConfig
from weft_rl.data.files import RECORD_SUFFIXES, suffix_of
from weft_rl.data.json_rows import LONGEST
from weft_rl.data.rejects import Rejects
from weft_rl.data.sft_examples import Example, Examples, encode_traces
from weft_rl.data.sources import read_traces, source_rows
from weft_rl.data.text import TextEncoder
from weft_rl.data.trace_schemas import COLUMNS, Trace, with_system
from weft_rl.data.values import is_missing, require_text
from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_text
from weft_rl.stages import cold_start
from weft_rl.stages.context import ModelFiles, count_tokens
from weft_rl.stages.held_out import split
from weft_rl.trainers.sft_dataset import LabelledExample, end_of_turn

SELF = "self"


class AdaptationData(NamedTuple):
    """Packed training sequences, held-out records, and a summary."""

    train: list[LabelledExample]
    held_out: list[Example]
    lines: list[str]


def read_records(config: RunConfig, files: ModelFiles) -> tuple[list[Example], list[str]]:
    """Return the tokenized records of a2d.data, or of data= for `self`, with a summary.

    Raises UserError for unusable records and for sequences longer than the model's positions."""
    options, rejects = config.a2d, Rejects(config.cold_start.data.bad_records)
    positions = files.network.max_position_embeddings
    rule = f"the model has {positions} positions; use at most as many"
    require(options.max_length <= positions, "a2d.max_length", options.max_length, rule)
    if options.data == SELF:
        # traces that are generated depend on the seed, and the adaptation is the same in all runs
        shared = replace(config, seed=options.seed)
        examples, _ = cold_start.without_held_out(shared, cold_start.encoded(shared, files)[0])
        kept = [each for each in examples if len(each.ids) <= options.max_length]
        return kept, _left_out(len(examples) - len(kept), options)
    texts = _texts(options.data, rejects)
    if texts is None:
        reading = DataConfig(think="keep", bad_records=rejects.policy)
        return _chats(config, files, read_traces(options.data, reading, rejects), rejects)
    return _pieces(texts, files, options.max_length), rejects.summary()


def answered(
    config: RunConfig, files: ModelFiles, answers: Sequence[Trace]
) -> tuple[list[Example], list[str]]:
    """Return the tokenized records of answers that the model has written, with a summary."""
    options = config.a2d
    examples, lines = _chats(config, files, answers, Rejects("skip"))
    line = (
        f"  answers of the model: {len(answers)} of {options.records} end within "
        f"a2d.max_new_tokens={options.max_new_tokens}"
    )
    return examples, [line, *lines]


def prepare(config: RunConfig, examples: Sequence[Example], lines: list[str]) -> AdaptationData:
    """Split and pack records. Raises UserError if there are too few."""
    options = config.a2d
    count = len(examples)
    if count == 0:
        problem = f"no record is left of at most a2d.max_length={options.max_length} tokens"
        raise UserError(f"a2d.data={options.data}: {problem}; raise it")
    rule = f"a2d.data={options.data} gives {count} records; use fewer than {count}, or more data"
    train, held_out = split(examples, options.eval_records, options.seed)
    require(bool(train), "a2d.eval_records", options.eval_records, rule)
    packed = pack(train, options.max_length)
    first = count_tokens("records", [len(each.ids) for each in examples])
    second = (
        f"  held out: {len(held_out)}; the others are packed into {len(packed)} sequences of at "
        f"most {options.max_length} tokens"
    )
    return AdaptationData(packed, held_out, [first, second, *lines])


def pack(examples: Sequence[Example], length: int) -> list[LabelledExample]:
    """Concatenate examples of at most `length` tokens to sequences, as full as possible.

    The examples of a sequence see each other."""
    disable_progress_bars()
    columns = {
        "input_ids": [each.ids for each in examples],
        "labels": [each.labels for each in examples],
    }
    rows = pack_dataset(Dataset.from_dict(columns), length, "bfd")
    return [
        LabelledExample(index, row["input_ids"], 0, row["labels"]) for index, row in enumerate(rows)
    ]


def _chats(
    config: RunConfig, files: ModelFiles, traces: Sequence[Trace], rejects: Rejects
) -> tuple[list[Example], list[str]]:
    options = config.a2d
    result = encode_traces(
        [with_system(trace, config.system) for trace in traces],
        files.tokenizer,
        config.prompt_style,
        end_of_turn(files.tokenizer, files.network),
        options.max_length,
        reject=rejects,
    )
    return [*result.examples], _left_out(result.dropped, options) + rejects.summary()


def _left_out(count: int, options: A2DConfig) -> list[str]:
    limit = f"longer than a2d.max_length={options.max_length} tokens"
    return [f"  {limit}: {count} left out"] if count else []


def _texts(data: str, rejects: Rejects) -> list[str] | None:
    """Texts of .txt files or of a column `text`; None for chats."""
    path, is_plain = Path(data), suffix_of(data) == ".txt"
    files = [path] if is_plain else sorted(path.glob("*.txt")) if path.is_dir() else []
    if files:
        found = {} if is_plain else {suffix_of(each.name): None for each in sorted(path.iterdir())}
        others = [suffix for suffix in found if suffix in RECORD_SUFFIXES]
        if others:
            kinds = " and ".join([".txt", *others])
            raise UserError(f"a2d.data={data}: has {kinds} files; name one kind")
        texts = [read_text(file, "split it into several files", LONGEST) for file in files]
        if not any(map(str.strip, texts)):
            raise UserError(f"a2d.data={data}: is empty; name a file with text")
        return texts
    rows = source_rows(data, {"text", *COLUMNS}, rejects)
    first = next(rows, None)
    if first is None or is_missing(first[1].get("text")):
        return None
    texts = []
    for where, row in chain([first], rows):
        try:
            texts.append(require_text("text", row.get("text")))
        except ValueError as error:
            rejects(UserError(f"{where}: {error}; fix or remove the record"))
    return texts


def _pieces(texts: Sequence[str], files: ModelFiles, length: int) -> list[Example]:
    """Encode texts with an end token, and cut them into pieces; all tokens are trained."""
    end = files.network.end_token_ids[0]
    pieces = Examples()
    for ids in TextEncoder(files.tokenizer).texts(texts):
        whole = [*ids, end]
        for begin in range(0, len(whole), length):
            pieces.append(Example(len(pieces), whole[begin : begin + length], 0))
    return [*pieces]
