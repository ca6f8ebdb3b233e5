"""Reading records: the published files, and what is said about faulty ones."""

import pytest

from rewards.grid import completions
from weft_rl.data.records import load_records, read_csv, read_jsonl
from weft_rl.errors import UserError

GOOD = "4320004330100004,4321124334122134"


def test_published_sudoku():
    records = load_records("sudoku", "published")
    assert len(records) == 500
    assert len({record.fields["solution"] for record in records}) == 229
    assert {record.fields["puzzle"].count("0") for record in records} == {8}
    found = [completions(record.fields["puzzle"]) for record in records]
    assert all(r.fields["solution"] in some for r, some in zip(records, found, strict=True))
    assert sum(len(some) > 1 for some in found) == 124
    assert (records[0].id, records[-1].id) == ("published-0", "published-499")
    assert records[0].fields == {"puzzle": "3102200002100320", "solution": "3142243142131324"}


def test_published_countdown():
    records = load_records("countdown", "published")
    assert len(records) == 256
    assert records[0].fields == {"numbers": [30, 100, 93], "target": 23}
    assert {len(record.fields["numbers"]) for record in records} == {3}


def write(path, text):
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"input": "30,100,93", "output": "23"}\n',
        '{"numbers": [30, 100, 93], "target": 23}',
        '{"nums": [30, 100, 93], "target": 23}\r\n\r\n',
        '\ufeff{"input": "[30, 100, 93]", "output": 23, "more": 1}',
    ],
)
def test_forms_of_countdown(tmp_path, text):
    (record,) = load_records("countdown", write(tmp_path / "a.jsonl", text))
    assert record.fields == {"numbers": [30, 100, 93], "target": 23}
    assert record.id == "a.jsonl-0"


def test_forms_of_sudoku(tmp_path):
    (row,) = load_records("sudoku", write(tmp_path / "a.csv", f"Puzzle,Solution\r\n{GOOD}\r\n\r\n"))
    line = '{"puzzle": "4320004330100004", "solution": "4321124334122134"}'
    (other,) = load_records("sudoku", write(tmp_path / "a.jsonl", line))
    assert row.fields == other.fields


@pytest.mark.parametrize(
    ("name", "text", "where", "why"),
    [
        ("a.csv", "Puzzle,Solution\n4320,4321\n", ":2:", "Puzzle must be 16 digits"),
        ("a.csv", f"Puzzle,Solution\n{GOOD}\n{GOOD[:-1]}5\n", ":3:", "Solution must be 16 digits"),
        ("a.csv", "Puzzle,Solution\n4320004330100004,4321124334122143\n", ":2:", "does not solve"),
        ("a.csv", "Puzzle,Solution\n4320004330100004,1234341221434321\n", ":2:", "does not solve"),
        ("a.csv", f"Puzzle,Solution\n{GOOD}\n\n{GOOD}\n", ":4:", "same record as in line 2"),
        ("a.csv", f"Puzzle,Solution\n{GOOD},1\n", ":2:", "3 columns, but the header has 2"),
        ("a.csv", f"{GOOD}\n{GOOD}\n", ":2:", "Puzzle must be"),
        ("a.csv", 'Puzzle,Solution\n"4320\n', ":2:", "not CSV"),
        ("a.csv", "Puzzle,Solution\n432000433010000٤,4321124334122134\n", ":2:", "16 digits"),
        ("a.csv", "Puzzle,Solution\n", ":", "holds no records"),
        ("a.csv", "", ":", "holds no records"),
        ("a.jsonl", '{"puzzle": 4320004330100004}', ":1:", "Puzzle must be 16 digits"),
    ],
)
def test_faulty_sudoku(tmp_path, name, text, where, why):
    path = write(tmp_path / name, text)
    with pytest.raises(UserError) as error:
        load_records("sudoku", path)
    assert str(error.value).startswith(path + where)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ('{"input": "1,2,3", "output": "6"}\n{"input": "1,2,3"', ":2:", "not JSON"),
        ("[" * 100_000, ":1:", "not JSON"),
        ('{"target": ' + "9" * 5000 + "}", ":1:", "not JSON"),
        ("\n[1]\n", ":2:", "must be a JSON object"),
        ('{"output": "6"}', ":1:", "numbers (or input) must list integers, got None"),
        ('{"input": "1,2,x", "output": "6"}', ":1:", "integers of at most 9 digits, got 'x'"),
        ('{"input": "1,2,٣", "output": "6"}', ":1:", "numbers (or input) must be integers"),
        ('{"numbers": [1.5], "target": 6}', ":1:", "numbers (or input) must be integers"),
        ('{"numbers": [true], "target": 6}', ":1:", "numbers (or input) must be integers"),
        ('{"numbers": [], "target": 6}', ":1:", "must list integers"),
        ('{"numbers": [1], "target": 1e300}', ":1:", "target (or output) must be integers"),
        ('{"numbers": [1], "target": "' + "9" * 10 + '"}', ":1:", "at most 9 digits"),
        ('{"numbers": [1], "target": 1}\n{"input": "1", "output": "1"}', ":2:", "line 1"),
        (" \n\n", ":", "holds no records"),
        ("\ud800", ":", "is not UTF-8 text"),
    ],
)
def test_faulty_countdown(tmp_path, text, where, why):
    path = write(tmp_path / "a.jsonl", text)
    with pytest.raises(UserError) as error:
        load_records("countdown", path)
    assert str(error.value).startswith(path + where)
    assert why in str(error.value)
    assert len(str(error.value)) < len(path) + 200


def test_files_that_are_none(tmp_path):
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            load_records("countdown", str(path))
    with pytest.raises(UserError, match="task=chess: must be one of sudoku, countdown"):
        load_records("chess", "published")


def test_rows_come_with_their_line_numbers(tmp_path):
    path = tmp_path / "a"
    write(path, '{"a": 1}\n\n{"a": 2}\n')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": 2})]
    write(path, "a,b\n1,2\n\n3,4\n")
    assert list(read_csv(path)) == [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4"})]
