"""The reader of record files: every form that files come in gives the same rows."""

import bz2
import gzip
import json
import lzma
import os
import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet
from refusals import refusal
from run_folders import written

from weft_rl.config.cold_start import DataConfig
from weft_rl.data.files import read_rows
from weft_rl.data.rejects import Rejects
from weft_rl.data.sources import read_traces
from weft_rl.data.tasks import load_records
from weft_rl.errors import UserError

ROWS = [{"question": f"Wie viele Äpfel, {i}?", "answer": str(i)} for i in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = "question,answer\n" + "".join(f'"{row["question"]}",{row["answer"]}\n' for row in ROWS)


def pretty(value):
    return json.dumps(value, indent=2)


def rows_of(path, *arguments):
    return [row for _, row in read_rows(path, *arguments)]


SEMICOLONS = TABLE.replace(",", ";").replace("Äpfel;", "Äpfel,")
ZSTD = {"codec": "zstd", "asbytes": True}
FORMS = {
    "a.jsonl": [LINES, LINES.rstrip(), LINES.replace("\n", "\n\n"), f"\n \n{LINES}"],
    "b.jsonl": [LINES.replace("\n", "\r\n"), "\ufeff" + LINES, json.dumps(ROWS)],
    "c.jsonl": [gzip.compress(LINES.encode())],
    "a.JSONL": [LINES],
    "a.ndjson": [LINES],
    "a": [LINES],
    "a.json": [json.dumps(ROWS), "\ufeff" + pretty(ROWS), pretty(ROWS).replace("\n", "\r\n")],
    "b.json": ["[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]"],
    "c.json": ["\n".join(map(pretty, ROWS)), "".join(map(pretty, ROWS))],
    "d.json": [json.dumps({"version": 1, "data": ROWS}), pretty({"a": "b", "rows": ROWS})],
    "a.JSON": [f"\n\n {pretty(ROWS)}\n\n"],
    "a.csv": [TABLE, TABLE.replace("\n", "\r\n"), TABLE.replace("question,", "question , ")],
    "b.csv": [SEMICOLONS, "sep=;\n" + SEMICOLONS],
    "a.CSV": ["\ufeff" + TABLE],
    "a.tsv": [TABLE.replace(",", "\t").replace("Äpfel\t", "Äpfel,")],
    "a.jsonl.gz": [gzip.compress(LINES.encode()), LINES],
    "a.json.GZ": [gzip.compress(pretty(ROWS).encode())],
    "a.csv.gz": [gzip.compress(TABLE.encode())],
    "a.jsonl.bz2": [bz2.compress(LINES.encode())],
    "a.json.xz": [lzma.compress(json.dumps(ROWS).encode())],
    "a.jsonl.zst": [pyarrow.compress(LINES.encode(), **ZSTD)],
    "a.csv.zst": [pyarrow.compress(TABLE.encode(), **ZSTD)],
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(tmp_path, name):
    for content in FORMS[name]:
        assert rows_of(written(tmp_path / name, content)) == ROWS, content


RECORDS = {"orient": "records"}
PANDAS = [
    *(("a.json", "to_json", {}), ("a.json", "to_json", RECORDS), ("a.csv", "to_csv", {})),
    ("a.json", "to_json", RECORDS | {"lines": True}),
    ("a.json", "to_json", RECORDS | {"indent": 2}),
    *(("a.jsonl.gz", "to_json", RECORDS | {"lines": True}), ("a", "to_parquet", {})),
    ("a.csv", "to_csv", {"index": False, "sep": ";"}),
    ("a.csv.xz", "to_csv", {"encoding": "utf-8-sig"}),
    ("a.PARQUET", "to_parquet", {"index": True}),
]


def test_files_of_pandas(tmp_path):
    table, columns = pd.DataFrame(ROWS), ("question", "answer")
    for name, method, options in PANDAS:
        for frame in (
            table,
            table.astype("category") if name == "a.PARQUET" else table[::-1][::-1],
        ):
            getattr(frame, method)(tmp_path / name, **options)
            rows = rows_of(tmp_path / name, columns)
            assert [{key: row[key] for key in columns} for row in rows] == ROWS


def test_places_are_lines_or_records(tmp_path):
    def places(name, content):
        path = written(tmp_path / name, content)
        return [where.removeprefix(str(path)) for where, _ in read_rows(path)]

    assert rows_of(written(tmp_path / "a.tsv", "q\na, b\nc\n")) == [{"q": "a, b"}, {"q": "c"}]
    assert places("a.jsonl", "\n" + LINES) == [":2", ":3", ":4"]
    assert places("a.csv", TABLE) == [":2", ":3", ":4"]
    assert places("a.csv", "sep=,\n" + TABLE) == [":3", ":4", ":5"]
    assert places("a.json", json.dumps(ROWS)) == [f":1: record {i}" for i in (1, 2, 3)]
    assert places("a.json", "\n" + pretty(ROWS)) == [
        f":{line}: record {i}" for i, line in enumerate((3, 7, 11), 1)
    ]
    assert places("a.json", "\n".join(map(pretty, ROWS))) == [":1", ":5", ":9"]


LATE, NOWHERE = pyarrow.timestamp("us"), pyarrow.timestamp("us", "Nowhere/Else")
STRING, BAD_UTF8 = pyarrow.string(), pyarrow.array([b"1", b"\xff"]).buffers()
NESTED_TIME = pyarrow.list_(pyarrow.struct([("at", LATE)]))
# Each of these leaves `question` and `answer` as they are.
UNUSED = {
    "beyond 9999": pyarrow.array([2**62, 0], LATE),
    "no such zone": pyarrow.array([1, 2], NOWHERE),
    "not UTF-8": pyarrow.Array.from_buffers(STRING, 2, BAD_UTF8),
    "nested": pyarrow.array([[{"a": [{"b": 1}]}], []]),
    "nested time": pyarrow.array([[{"at": 2**62}], []], NESTED_TIME),
    "large": pyarrow.array([b"x" * 10**6, None]),
    "map": pyarrow.array([[("k", 1)], None], pyarrow.map_(STRING, pyarrow.int64())),
    "dots.in.it": pyarrow.array([1, 2]),
    "duration": pyarrow.array([2**62, 1], pyarrow.duration("s")),
}


def traces_of(path):
    return [(t.question, t.answer) for t in read_traces(str(path), DataConfig(), Rejects("error"))]


def write_table(path, columns):
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("name", UNUSED)
def test_columns_that_are_not_used_are_not_read(tmp_path, name):
    unused, path = {"question": ["a", "b"], name: UNUSED[name]}, tmp_path / "a.parquet"
    records = load_records("gsm8k", str(write_table(path, unused | {"answer": ["1", "2"]})))
    assert [record.fields["answer"] for record in records] == ["1", "2"]
    traces = {"deepseek_thinking_trajectory": ["t", "t"], "deepseek_attempt": ["x", "y"]}
    assert traces_of(write_table(path, traces | unused)) == [("a", "x"), ("b", "y")]


def chat_of(question, answer, role="role", content="content", assistant="assistant"):
    return [{role: "user", content: question}, {role: assistant, content: answer}]


def test_of_messages_only_what_is_used_is_read(tmp_path):
    message = pyarrow.struct([("role", "string"), ("content", "string"), ("at", NOWHERE)])
    turns, path = chat_of("q", "a"), tmp_path / "a.parquet"
    timed = pyarrow.array([[turn | {"at": 1} for turn in turns]], pyarrow.list_(message))
    parts = chat_of(*([{"type": "text", "text": text}] for text in "qa"), assistant="gpt")
    # also where a column has them as text
    for messages in (timed, [json.dumps(turns)], [parts], [chat_of("q", "a", "from", "value")]):
        assert traces_of(write_table(path, {"messages": messages})) == [("q", "a")]
    assert traces_of(write_table(path, {"conversations": [parts]})) == [("q", "a")]
    call = turns[1] | {"tool_calls": [{"id": "1"}]}
    with pytest.raises(UserError, match=f"{path}.* 1: .*tool"):
        traces_of(write_table(path, {"messages": [[turns[0] | {"tool_calls": None}, call]]}))


def test_a_cell_that_has_no_value_is_named_or_left_out(tmp_path):
    broken = pyarrow.Array.from_buffers(STRING, 2, BAD_UTF8)
    path = write_table(tmp_path / "a.parquet", {"question": ["a", "b"], "answer": broken})
    with pytest.raises(UserError, match=r"a\.parquet: record 2: column answer "):
        load_records("gsm8k", str(path))
    assert len(load_records("gsm8k", str(path), Rejects("skip"))) == 1
    # where nothing is known of the columns, the place of the record tells
    first, second = (where for where, _ in read_rows(path))
    assert first == f"{path}: record 1"
    assert "column answer" in second


UNUSED_VALUES = [
    *(b'"\xff"', b"NaN", b"9" * 5000, b'{"y": [null, {"z": []}]}', b'"\\ud83d"', b'1, "x": 2'),
    *(b'"' + b"y" * 10**7 + b'"', b'"' + b"\xc3\xa4" * 10**6 + b'"'),
]
UNUSED_CELLS = [b"question,answer,x\nq,1,\xff\n", b"x,x,question,answer\n1,2,q,1\n"]
UNUSED_CELLS += [b"question,answer,x\nq,1," + b"y" * 10**6 + b"\n"]


def test_what_is_not_used_is_never_an_error(tmp_path):
    rows = [b'{"question": "q", "answer": "1", "x": %s}' % value for value in UNUSED_VALUES]
    files = [("a.jsonl", row) for row in rows] + [("a.json", b"[%s]" % row) for row in rows]
    for name, content in [*files, *(("a.csv", cells) for cells in UNUSED_CELLS)]:
        (record,) = load_records("gsm8k", str(written(tmp_path / name, content)))
        assert record.fields == {"question": "q", "answer": "1"}


MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh9", "xz": b"\xfd7zXZ\x00", "zst": b"\x28\xb5\x2f\xfd"}
WRONG = [
    *(("a.json", '[{"a": 1},\n{"a": 2},\n]', ":3"), ("a.json", '[{"a": 1}\n{"a": 2}]', ":2")),
    *(("a.json", '[{"a": 1},\n{"a": ', ":2"), ("a.json", '[{"a": 1}\n', ":2")),
    *(("a.json", "[", ":1"), ("a.json", '[{"a": 1},\n', ":2")),
    *(("a.json", '[{"a": 1}]\n[{"a": 2}]', ":2"), ("a.json", "[1]", ":1: record 1")),
    *(("a.json", '{\n"a": 1,\n"b": }\n', ":3"), ("a.json", '{\n"a": 1,\n}', ":3")),
    *(("a.json", '{\n"a": 1,\n', ":3"), ("a.jsonl", '{"a": 1}\n{"a": ', ":2")),
    *(("a.jsonl", '{"a": \n{"a": 1}\n', ":1"), ("a.jsonl", '{"a": 1},\n{"a": 2},\n', ":1")),
    *(("a.jsonl", '{"a": 1}{"a": 2}\n', ":1"), ("a.jsonl", "{'a': 1}\n", ":1")),
    *(("a.jsonl", "5\n6\n", ":1"), ("a.jsonl", '{"a": 1}\n' + '{"a":' * 5000, ":2")),
    *(("a.json", "[" + '{"a":' * 100_000, ":1"), ("a.jsonl", b'{"a": "\xff"}', ":1")),
    *(("a.json", b'[{"a": 1},\n{"a": "\xff"}]', ":2: record 2"), ("a.csv", b"a\n1\n\xff\n", ":3")),
    *(("a.csv", b"\xff,b\n1,2\n", ":1"), ("a.csv", "a,b\n1,2,3\n", ":2")),
    *(("a.csv", "a,a\n1,2\n", ":1"), ("a.csv", 'a,b\n1,2\n"3,4\n', ":3")),
    # nothing is read of these, for a reason that must be the right one
    *(("a.jsonl", LINES.encode("utf-16"), "UTF-16"), ("a.xlsx", b"PK\x03\x04...", "workbook")),
    *(("a.csv", TABLE.encode("utf-16-be"), "UTF-16"), ("a.bin", bytes(4096), "NUL")),
    ("a.jsonl", LINES.encode("utf-16-le"), "UTF-16"),
    ("a.jsonl.gz", gzip.compress(LINES.encode())[:-9], "after record "),
    ("a.jsonl.gz", gzip.compress(LINES.encode())[:20], "after record 0"),
    *((f"a.jsonl.{kind}", start + b"nonsense", "after record 0") for kind, start in MAGIC.items()),
    *(("a.parquet.gz", gzip.compress(b"PAR1..."), "Parquet"), ("a.parquet", LINES, "as Parquet")),
]


@pytest.mark.parametrize(("name", "content", "told"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_by_its_place(tmp_path, name, content, told):
    path = written(tmp_path / name, content)
    message = refusal(rows_of, path)
    assert message.startswith(f"{path}{told}: " if told.startswith(":") else f"{path}: ")
    assert told in message


def test_lines_behind_a_broken_one_are_read(tmp_path):
    for name, content, kept in (
        ("a.jsonl", '{"a": 1}\n{"a"\n\n[]\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ("b.jsonl", 'x\n{"a": 1\n{"a": 2}\n', [{"a": 2}]),
        ("c.json", '[{"a": 1}, 5, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("d.csv", 'a,b\n1\n2,"x"y\n3,4\n', [{"a": "3", "b": "4"}]),
    ):
        path, reasons = written(tmp_path / name, content), []
        assert rows_of(path, None, reasons.append) == kept
        assert all(str(reason).startswith(f"{path}:") for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lines", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    path, rows = tmp_path / "a.json", [{"a": f"{i:0100}"} for i in range(30_000)]
    if kind == "lines":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    del rows
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path, ("a",))) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6  # as objects the rows are 12 MB


@pytest.mark.slow
def test_special_files_are_refused_at_once(tmp_path):
    (tmp_path / "link.csv").symlink_to(written(tmp_path / "target.csv", TABLE))
    assert rows_of(tmp_path / "link.csv") == ROWS
    fifo, sparse, folder, link = (tmp_path / f"{name}.jsonl" for name in "abcd")
    os.mkfifo(fifo)
    with sparse.open("wb") as file:
        file.truncate(10 << 30)
    folder.mkdir()
    link.symlink_to(tmp_path / "missing")
    for path in (fifo, Path("/dev/zero"), sparse, folder, link, tmp_path / ("x" * 300)):
        assert refusal(rows_of, path).startswith(f"{path}: ")
    with sparse.open("r+b") as file:
        file.write(b'{"a": "')
    assert refusal(rows_of, sparse).startswith(f"{sparse}:1: ")
