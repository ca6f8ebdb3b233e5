"""The cold start's records: read, checked, and as many of them as are asked for."""

from collections import deque
from collections.abc import Iterator
from heapq import nsmallest
from typing import Any

from weft_rl.config.cold_start import DataConfig
from weft_rl.config.fields import shown
from weft_rl.data.rejects import Rejects
from weft_rl.data.trace_schemas import COLUMNS, Trace, trace_of, turns_of
from weft_rl.data.trace_sources import PUBLISHED, Published, source_rows
from weft_rl.data.values import is_missing
from weft_rl.errors import UserError
from weft_rl.seeding import seed_for


def read_traces(data: str, options: DataConfig, rejects: Rejects) -> list[Trace]:
    """The traces of a file, folder or data set, in its order.

    data: as source_rows takes it. Unusable and repeated records go to `rejects`. Raises UserError
    naming file and record for those that its policy does not skip, and for a data set without
    records to train on."""
    name = PUBLISHED.get(data, Published(data))
    below, count = (
        options.below_tokens or name.below_tokens,
        options.num_records or name.num_records,
    )
    traces = _usable(data, options, rejects)
    if below is not None:
        traces = (trace for trace in traces if _tokens(trace) < below)
    chosen = [*traces] if count is None else _drawn(traces, count, options.draw_seed)
    if not chosen:
        limit = "" if below is None else f" below {below} tokens"
        left_out = [f"; {len(rejects.reasons)} left out, as {why}" for why in rejects.reasons[:1]]
        raise UserError(
            f"data={data}: holds no records{limit}{''.join(left_out)}; name one that does"
        )
    if count is not None and len(chosen) < count:
        raise UserError(
            f"cold_start.data.num_records={count}: only {len(chosen)} records of data={data} can "
            f"be drawn; try {len(chosen)}"
        )
    return chosen


def _usable(data: str, options: DataConfig, rejects: Rejects) -> Iterator[Trace]:
    """The traces of the rows, each once."""
    places: dict[Any, str] = {}
    for where, row in source_rows(data, COLUMNS, rejects):
        try:
            trace = trace_of(row, where, options.think)
            if options.chat_turns == "all":
                deque(turns_of(trace, options.think), maxlen=0)  # raises what is wrong with one
        except ValueError as error:
            rejects(UserError(f"{where}: {error}; mend or remove the record"))
            continue
        # hashes, so that hundreds of thousands of long texts need not be kept
        content = hash((trace.history, trace.question, trace.reasoning, trace.answer))
        if content in places:
            rejects.repeat(where, places[content])
            continue
        key = None if is_missing(row.get("id")) else ("id", str(row["id"]))
        if key in places:
            same = f"has the id {shown(row['id'])} of the record at {places[key]}"
            rejects(UserError(f"{where}: {same}; remove one"))
            continue
        places[content] = where
        if key:
            places[key] = where
        yield trace


def _tokens(trace: Trace) -> int:
    if trace.num_tokens is None:
        raise UserError(
            f"{trace.source}: has no num_tokens, which cold_start.data.below_tokens looks at; "
            "limit the length by cold_start.data.max_length"
        )
    return trace.num_tokens


def _drawn(traces: Iterator[Trace], count: int, seed: int) -> list[Trace]:
    """`count` traces in their order, each as likely as any other; the rest is not kept.

    The i-th one's lot depends on (seed, i) only."""
    lots = ((seed_for(seed, "record", i), i, trace) for i, trace in enumerate(traces))
    drawn = nsmallest(count, lots, key=lambda lot: lot[:2])
    return [trace for _, _, trace in sorted(drawn, key=lambda lot: lot[1])]
