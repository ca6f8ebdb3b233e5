"""The reader of record files: every form that files come in gives the same rows."""

import bz2
import gzip
import json
import lzma
import os
import tracemalloc
import zoneinfo
from pathlib import Path

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from weft_rl.config.cold_start import DataConfig
from weft_rl.data.files import read_rows
from weft_rl.data.records import load_records
from weft_rl.data.rejects import Rejects
from weft_rl.data.trace_selection import read_traces
from weft_rl.errors import UserError

ROWS = [{"question": f"Wie viele Äpfel, {i}?", "answer": str(i)} for i in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = "question,answer\n" + "".join(f'"{row["question"]}",{row["answer"]}\n' for row in ROWS)


def pretty(value):
    return json.dumps(value, indent=2)


def rows_of(path, columns=None, reject=None):
    more = () if reject is None else (reject,)
    return [row for _, row in read_rows(path, columns, *more)]


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def short(value):
    """A test's id without its content: gzip writes the time, and all workers need the same ids."""
    return (
        value if isinstance(value, str) and len(value) < 20 and value.isprintable() else "content"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.JSONL", LINES),
        ("a.ndjson", LINES),
        ("a", LINES),
        ("a.jsonl", LINES.rstrip()),
        ("a.jsonl", LINES.replace("\n", "\n\n")),
        ("a.jsonl", f"\n \n{LINES}"),
        ("a.jsonl", LINES.replace("\n", "\r\n")),
        ("a.jsonl", "\ufeff" + LINES),
        ("a.json", json.dumps(ROWS)),
        ("a.jsonl", json.dumps(ROWS)),
        ("a.json", "\ufeff" + pretty(ROWS)),
        ("a.JSON", f"\n\n {pretty(ROWS)}\n\n"),
        ("a.json", pretty(ROWS).replace("\n", "\r\n")),
        ("a.json", "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]"),
        ("a.json", "\n".join(map(pretty, ROWS))),
        ("a.json", "".join(map(pretty, ROWS))),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.json", pretty({"license": "MIT", "rows": ROWS})),
        ("a.csv", TABLE),
        ("a.CSV", "\ufeff" + TABLE),
        ("a.csv", TABLE.replace(",", ";").replace("Äpfel;", "Äpfel,")),
        ("a.csv", "sep=;\n" + TABLE.replace(",", ";").replace("Äpfel;", "Äpfel,")),
        ("a.csv", TABLE.replace("\n", "\r\n")),
        ("a.tsv", TABLE.replace(",", "\t").replace("Äpfel\t", "Äpfel,")),
        ("a.csv", TABLE.replace("question,", "question , ")),
        ("a.jsonl.gz", gzip.compress(LINES.encode())),
        ("a.jsonl", gzip.compress(LINES.encode())),
        ("a.jsonl.gz", LINES),
        ("a.json.GZ", gzip.compress(pretty(ROWS).encode())),
        ("a.csv.gz", gzip.compress(TABLE.encode())),
        ("a.jsonl.bz2", bz2.compress(LINES.encode())),
        ("a.json.xz", lzma.compress(json.dumps(ROWS).encode())),
        ("a.jsonl.zst", pyarrow.compress(LINES.encode(), "zstd", asbytes=True)),
        ("a.csv.zst", pyarrow.compress(TABLE.encode(), "zstd", asbytes=True)),
    ],
    ids=short,
)
def test_every_form_gives_the_same_rows(tmp_path, name, content):
    assert rows_of(written(tmp_path / name, content)) == ROWS


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json", lambda table, path: table.to_json(path)),
        ("a.json", lambda table, path: table.to_json(path, orient="records")),
        ("a.json", lambda table, path: table.to_json(path, orient="records", lines=True)),
        ("a.json", lambda table, path: table.to_json(path, orient="records", indent=2)),
        ("a.jsonl.gz", lambda table, path: table.to_json(path, orient="records", lines=True)),
        ("a.csv", lambda table, path: table.to_csv(path)),
        ("a.csv", lambda table, path: table.to_csv(path, index=False, sep=";")),
        ("a.csv.xz", lambda table, path: table.to_csv(path, encoding="utf-8-sig")),
        ("a.parquet", lambda table, path: table.to_parquet(path)),
        ("a", lambda table, path: table.iloc[::-1].iloc[::-1].to_parquet(path)),
        ("a.PARQUET", lambda table, path: table.astype("category").to_parquet(path, index=True)),
    ],
)
def test_files_of_pandas(tmp_path, name, write):
    path = tmp_path / name
    write(pd.DataFrame(ROWS), path)
    columns = ("question", "answer")
    assert [{name: row[name] for name in columns} for row in rows_of(path, columns)] == ROWS


def test_a_table_of_one_column_by_tabs(tmp_path):
    assert rows_of(written(tmp_path / "a.tsv", "q\na, b\nc\n")) == [{"q": "a, b"}, {"q": "c"}]


def test_places_are_lines_or_records(tmp_path):
    def places(name, content):
        path = written(tmp_path / name, content)
        return [where.removeprefix(str(path)) for where, _ in read_rows(path)]

    assert places("a.jsonl", "\n" + LINES) == [":2", ":3", ":4"]
    assert places("a.csv", TABLE) == [":2", ":3", ":4"]
    assert places("a.csv", "sep=,\n" + TABLE) == [":3", ":4", ":5"]
    assert places("a.json", json.dumps(ROWS)) == [f":1: record {i}" for i in (1, 2, 3)]
    assert places("a.json", "\n" + pretty(ROWS)) == [
        f":{line}: record {i}" for i, line in enumerate((3, 7, 11), 1)
    ]
    assert places("a.json", "\n".join(map(pretty, ROWS))) == [":1", ":5", ":9"]


# Each of these leaves `question` and `answer` as they are.
UNUSED = {
    "beyond 9999": pyarrow.array([2**62, 0], pyarrow.timestamp("us")),
    "no such zone": pyarrow.array([1, 2], pyarrow.timestamp("us", "Nowhere/Else")),
    "not UTF-8": pyarrow.Array.from_buffers(
        pyarrow.string(), 2, pyarrow.array([b"\xff", b"a"]).buffers()
    ),
    "nested": pyarrow.array([[{"a": [{"b": 1}]}], []]),
    "nested time": pyarrow.array(
        [[{"at": 2**62}], []], pyarrow.list_(pyarrow.struct([("at", pyarrow.timestamp("us"))]))
    ),
    "large": pyarrow.array([b"x" * 10**6, None]),
    "map": pyarrow.array([[("k", 1)], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "dots.in.it": pyarrow.array([1, 2]),
    "duration": pyarrow.array([2**62, 1], pyarrow.duration("s")),
}


@pytest.mark.parametrize("name", UNUSED)
def test_columns_that_are_not_used_are_not_read(tmp_path, name):
    table = {"question": ["a", "b"], name: UNUSED[name], "answer": ["1", "2"]}
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(table), path)
    records = load_records("gsm8k", str(path))
    assert [record.fields["answer"] for record in records] == ["1", "2"]
    traces = {"question": ["a", "b"], "deepseek_thinking_trajectory": ["t", "t"]}
    table = traces | {"deepseek_attempt": ["x", "y"], name: UNUSED[name]}
    parquet.write_table(pyarrow.table(table), path)
    assert [trace.answer for trace in read_traces(str(path), DataConfig(), Rejects("error"))] == [
        "x",
        "y",
    ]


def test_of_messages_only_role_and_content_are_read(tmp_path):
    message = pyarrow.struct(
        [("role", "string"), ("content", "string"), ("at", pyarrow.timestamp("us", "Nowhere/Else"))]
    )
    turns = [
        {"role": role, "content": text, "at": 1}
        for role, text in (("user", "q"), ("assistant", "a"))
    ]
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"messages": pyarrow.array([turns], pyarrow.list_(message))})
    parquet.write_table(table, path)
    (trace,) = read_traces(str(path), DataConfig(), Rejects("error"))
    assert (trace.question, trace.answer) == ("q", "a")
    # and where a column has them as text
    spelled = [json.dumps([{k: turn[k] for k in ("role", "content")} for turn in turns])]
    parquet.write_table(pyarrow.table({"messages": spelled}), path)
    (trace,) = read_traces(str(path), DataConfig(), Rejects("error"))
    assert (trace.question, trace.answer) == ("q", "a")


def test_a_cell_that_has_no_value_is_named_or_left_out(tmp_path):
    path = tmp_path / "a.parquet"
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, pyarrow.array([b"1", b"\xff"]).buffers()
    )
    parquet.write_table(pyarrow.table({"question": ["a", "b"], "answer": broken}), path)
    with pytest.raises(UserError, match=r"a\.parquet: record 2: column answer cannot be read"):
        load_records("gsm8k", str(path))
    assert len(load_records("gsm8k", str(path), Rejects("skip"))) == 1
    # where nothing is known of the columns, the place of the record tells
    first, second = (where for where, _ in read_rows(path))
    assert first == f"{path}: record 1"
    assert "column answer cannot be read" in second


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"question": "q", "answer": "1", "x": "\xff"}'),
        ("a.json", b'[{"question": "q", "answer": "1", "x": "\xff"}]'),
        ("a.csv", b"question,answer,x\nq,1,\xff\n"),
        ("a.csv", b"x,x,question,answer\n1,2,q,1\n"),
        ("a.jsonl", b'{"question": "q", "answer": "1", "x": NaN, "y": Infinity}'),
        ("a.jsonl", b'{"question": "q", "answer": "1", "x": ' + b"9" * 5000 + b"}"),
        ("a.json", b'[{"question": "q", "answer": "1", "x": ' + b"9" * 5000 + b"}]"),
        ("a.jsonl", b'{"question": "q", "answer": "1", "x": {"y": [null, {"z": []}]}}'),
        ("a.jsonl", b'{"question": "q", "answer": "1", "x": "\\ud83d"}'),
        ("a.jsonl", b'{"question": "q", "answer": "1", "x": 1, "x": 2}'),
        ("a.jsonl", b'{"question": "q", "answer": "1", "x": "' + b"y" * 10**7 + b'"}'),
        ("a.json", b'[{"question": "q", "answer": "1", "x": "' + b"\xc3\xa4" * 10**6 + b'"}]'),
        ("a.csv", b"question,answer,x\nq,1," + b"y" * 10**6 + b"\n"),
    ],
    ids=short,
)
def test_what_is_not_used_is_never_an_error(tmp_path, name, content):
    (record,) = load_records("gsm8k", str(written(tmp_path / name, content)))
    assert record.fields == {"question": "q", "answer": "1"}


@pytest.mark.parametrize(
    ("name", "content", "where", "why"),
    [
        ("a.json", '[{"a": 1},\n{"a": 2},\n]', ":3", "not JSON"),
        ("a.json", '[{"a": 1}\n{"a": 2}]', ":2", "not JSON"),
        ("a.json", '[{"a": 1},\n{"a": ', ":2", "too early"),
        ("a.json", '[{"a": 1}\n', ":2", "too early"),
        ("a.json", "[", ":1", "too early"),
        ("a.json", '[{"a": 1}]\n[{"a": 2}]', ":2", "more text behind the array"),
        ("a.json", "[1]", ":1: record 1", "must be a JSON object"),
        ("a.json", '{\n"a": 1,\n"b": }\n', ":3", "not JSON"),
        ("a.json", '{\n"a": 1,\n}', ":3", "not JSON"),
        ("a.json", '{\n"a": 1,\n', ":3", "not JSON"),
        ("a.jsonl", '{"a": 1}\n{"a": ', ":2", "not JSON"),
        ("a.jsonl", '{"a": \n{"a": 1}\n', ":1", "not JSON"),
        ("a.jsonl", '{"a": 1},\n{"a": 2},\n', ":1", "not JSON"),
        ("a.jsonl", '{"a": 1}{"a": 2}\n', ":1", "not JSON"),
        ("a.jsonl", "{'a': 1}\n", ":1", "not JSON"),
        ("a.jsonl", "5\n6\n", ":1", "must be a JSON object"),
        ("a.jsonl", '{"a": 1}\n' + '{"a":' * 5000, ":2", "nested too deep"),
        ("a.json", "[" + '{"a":' * 100_000, ":1", "nested too deep"),
        ("a.jsonl", b'{"a": "\xff"}', ":1", "not UTF-8"),
        ("a.json", b'[{"a": 1},\n{"a": "\xff"}]', ":2: record 2", "not UTF-8"),
        ("a.csv", b"a\n1\n\xff\n", ":3", "not UTF-8"),
        ("a.csv", b"\xff,b\n1,2\n", ":1", "not UTF-8"),
        ("a.csv", "a,b\n1,2,3\n", ":2", "3 columns"),
        ("a.csv", "a,a\n1,2\n", ":1", "two columns are called a"),
        ("a.csv", 'a,b\n1,2\n"3,4\n', ":3", "not CSV"),
        ("a.jsonl", LINES.encode("utf-16"), "", "UTF-16"),
        ("a.csv", TABLE.encode("utf-16-be"), "", "UTF-16"),
        ("a.jsonl", LINES.encode("utf-16-le"), "", "UTF-16"),
        ("a.xlsx", b"PK\x03\x04...", "", "workbook"),
        ("a.jsonl.gz", gzip.compress(LINES.encode())[:-9], "", "cannot be read after record "),
        ("a.jsonl.gz", gzip.compress(LINES.encode())[:20], "", "cannot be read after record 0"),
        ("a.jsonl.gz", b"\x1f\x8bnonsense", "", "cannot be read after record 0"),
        ("a.jsonl.bz2", b"BZh9nonsense", "", "cannot be read after record 0"),
        ("a.jsonl.xz", b"\xfd7zXZ\x00nonsense", "", "cannot be read after record 0"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfdnonsense", "", "cannot be read after record 0"),
        ("a.parquet.gz", gzip.compress(b"PAR1..."), "", "compressed Parquet"),
        ("a.parquet", LINES, "", "cannot be read as Parquet"),
        ("a.bin", bytes(4096), "", "NUL"),
    ],
    ids=short,
)
def test_what_is_wrong_is_named_by_its_place(tmp_path, name, content, where, why):
    path = written(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        rows_of(path)
    assert str(error.value).startswith(f"{path}{where}: ")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_lines_behind_a_broken_one_are_read(tmp_path):
    for name, content, kept in (
        ("a.jsonl", '{"a": 1}\n{"a"\n\n[]\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ("b.jsonl", 'x\n{"a": 1\n{"a": 2}\n', [{"a": 2}]),
        ("c.json", '[{"a": 1}, 5, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("d.csv", 'a,b\n1\n2,"x"y\n3,4\n', [{"a": "3", "b": "4"}]),
    ):
        reasons = []
        path = written(tmp_path / name, content)
        assert rows_of(path, None, reasons.append) == kept
        assert all(str(reason).startswith(f"{path}:") for reason in reasons)


@pytest.mark.parametrize("text", ['{"a": %s}', '{"a": [%s]}', '{"a": "%s"}', '{"a": 0.5%s}'])
@pytest.mark.parametrize("length", [*range(2**20 - 12, 2**20 + 4)])
def test_values_that_the_end_of_a_part_cuts(tmp_path, text, length):
    """An array is decoded by parts of a MiB; where one ends makes no difference."""
    row = text % "12\\u00e4" if '"%s"' in text else text % "1234567"
    path = tmp_path / "a.json"
    path.write_text(f"[{' ' * (length - len(row))}{row}, {row},\n{row}]")
    assert rows_of(path) == [json.loads(row)] * 3


@pytest.mark.parametrize("kind", ["lines", "array", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    rows = [{"a": f"{i:0100}"} for i in range(30_000)]
    path = tmp_path / "a.json"
    if kind == "lines":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif kind == "array":
        path.write_text(json.dumps(rows))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    del rows
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path, ("a",))) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # as objects the rows are 12 MB
    assert peak < 6e6


def test_special_files_are_refused_at_once(tmp_path):
    fifo, sparse = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    os.mkfifo(fifo)
    with sparse.open("wb") as file:
        file.truncate(10 << 30)
    folder = tmp_path / "c.jsonl"
    folder.mkdir()
    link = tmp_path / "d.jsonl"
    link.symlink_to(tmp_path / "missing")
    for path in (fifo, Path("/dev/zero"), sparse, folder, link, tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=f"^{path}: "):
            rows_of(path)
    with sparse.open("r+b") as file:
        file.write(b'{"a": "')
    with pytest.raises(UserError, match=r"b\.jsonl:1: a record of more than"):
        rows_of(sparse)


def test_a_link_is_the_file_it_points_to(tmp_path):
    written(tmp_path / "a.csv", TABLE)
    link = tmp_path / "b.csv"
    link.symlink_to("a.csv")
    assert rows_of(link) == ROWS


def test_time_zones_are_there_for_the_test():
    with pytest.raises(zoneinfo.ZoneInfoNotFoundError):
        zoneinfo.ZoneInfo("Nowhere/Else")
