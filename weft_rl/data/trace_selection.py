"""Reading, checking and sampling of cold-start records."""

from collections.abc import Iterator
from heapq import nsmallest

from weft_rl.config.cold_start import DataConfig
from weft_rl.config.fields import shown
from weft_rl.data.rejects import Rejects
from weft_rl.data.sources import PUBLISHED, Published, source_rows
from weft_rl.data.trace_schemas import COLUMNS, Trace, trace_of, turns_of
from weft_rl.data.values import is_missing
from weft_rl.errors import UserError
from weft_rl.seeding import seed_for


def read_traces(data: str, options: DataConfig, rejects: Rejects) -> list[Trace]:
    """Return the traces of a source in order; unusable and duplicate ones go to `rejects`.

    data: see source_rows. Raises UserError under a raising policy and without usable records."""
    published = PUBLISHED.get(data, Published(data))
    below = options.below_tokens or published.below_tokens
    count = options.num_records or published.num_records
    traces = _usable(data, options, rejects)
    if below is not None:
        traces = (trace for trace in traces if _num_tokens(trace) < below)
    if count is not None:
        # uniform; the i-th key depends only on (seed, i)
        lots = ((seed_for(options.draw_seed, "record", i), i, t) for i, t in enumerate(traces))
        drawn = nsmallest(count, lots, key=lambda lot: lot[:2])
        traces = (trace for _, _, trace in sorted(drawn, key=lambda lot: lot[1]))
    chosen = [*traces]
    if not chosen:
        limit = "" if below is None else f" below {below} tokens"
        raise UserError(
            f"data={data}: holds no records{limit}{rejects.first()}; name a source that does"
        )
    if count is not None and len(chosen) < count:
        raise UserError(
            f"cold_start.data.num_records={count}: only {len(chosen)} records of data={data} can "
            f"be drawn; try {len(chosen)}"
        )
    return chosen


def _usable(data: str, options: DataConfig, rejects: Rejects) -> Iterator[Trace]:
    places: dict[int, str] = {}
    ids: dict[str, str] = {}
    for where, row in source_rows(data, COLUMNS, rejects):
        try:
            trace = trace_of(row, where, options.think)
            if options.chat_turns == "all":
                [*turns_of(trace, options.think)]  # validates every turn
        except ValueError as error:
            rejects(UserError(f"{where}: {error}; fix or remove the record"))
            continue
        # hashes bound the memory for large data sets
        content = hash((trace.history, trace.question, trace.reasoning, trace.answer))
        key = "" if is_missing(row.get("id")) else str(row["id"])
        if content in places:
            rejects.repeat(where, places[content])
        elif key in ids:
            same = f"has the id {shown(row['id'])} of the record at {ids[key]}"
            rejects(UserError(f"{where}: {same}; remove one"))
        else:
            places[content] = where
            if key:
                ids[key] = where
            yield trace


def _num_tokens(trace: Trace) -> int:
    if trace.num_tokens is None:
        raise UserError(
            f"{trace.source}: has no num_tokens, which cold_start.data.below_tokens needs; "
            "limit the length with cold_start.data.max_length"
        )
    return trace.num_tokens
