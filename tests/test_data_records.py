"""Reading records: the published files, every form, and errors for faulty ones."""

import json

import pytest
from refusals import refusal

from weft_rl.data.rejects import Rejects
from weft_rl.data.tasks import load_records
from weft_rl.errors import UserError
from weft_rl.rewards.sudoku_grid import completions

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


def test_forms_of_countdown(tmp_path):
    tables = ('"[30 100 93]"', '"(30, 100, 93)"', "[30.0, 100.0, 93.0]")
    for text in (
        *('{"input": "30,100,93", "output": "23"}\n', '{"numbers": [30, 100, 93], "target": 23}'),
        '{"nums": [30, 100, 93], "target": 23}\r\n\r\n',
        '\ufeff{"input": "[30, 100, 93]", "output": 23, "more": 1}',
        *(f'{{"numbers": {numbers}, "target": 23.0, "input": null}}' for numbers in tables),
    ):
        (record,) = load_records("countdown", write(tmp_path / "a.jsonl", text))
        assert record.fields == {"numbers": [30, 100, 93], "target": 23}
        assert record.id == "a.jsonl-0"


def test_forms_of_sudoku(tmp_path):
    (row,) = load_records("sudoku", write(tmp_path / "a.csv", f"Puzzle,Solution\r\n{GOOD}\r\n\r\n"))
    line = '{"puzzle": "4320004330100004", "solution": "4321124334122134"}'
    (other,) = load_records("sudoku", write(tmp_path / "a.jsonl", line))
    assert row.fields == other.fields


HEADER = "Puzzle,Solution\n"
FAULTY = [
    *((f"{HEADER}4320,4321\n", 2, "Puzzle"), (f"{HEADER}{GOOD}\n{GOOD[:-1]}5\n", 3, "Solution")),
    (f"{HEADER}4320004330100004,4321124334122143\n", 2, "does not solve"),
    (f"{HEADER}4320004330100004,1234341221434321\n", 2, "does not solve"),
    (f"{GOOD}\n{GOOD}\n", 2, "Puzzle"),
    (f"{HEADER}432000433010000٤,4321124334122134\n", 2, "Puzzle"),
    *((HEADER, "", "no records"), ("", "", "no records"), ('{"output": "6"}', 1, "numbers")),
    ('{"nums": [1], "target": ' + "9" * 5000 + "}", 1, "target"),
    *((f'{{"input": "1,2,{odd}", "output": "6"}}', 1, "numbers") for odd in "x٣"),
    *((f'{{"numbers": [{odd}], "target": 6}}', 1, "numbers") for odd in ("1.5", "true", "")),
    ('{"numbers": [1], "target": 1e300}', 1, "target"),
    (f'{{"numbers": [1], "target": "{"9" * 10}"}}', 1, "target"),
    *((" \n\n", "", "no records"), ("\ud800", "", "UTF-8")),
]


@pytest.mark.parametrize(("text", "line", "key"), FAULTY, ids=range(len(FAULTY)))
def test_faulty_records_are_named(tmp_path, text, line, key):
    """tests/test_files.py has what is wrong with a file whatever it holds."""
    task, name = ("sudoku", "a.csv") if text[:1] in "P4" else ("countdown", "a.jsonl")
    path = write(tmp_path / name, text)
    message = refusal(load_records, task, path)
    assert message.startswith(f"{path}:{line}:".replace("::", ":"))
    assert key in message
    assert len(message) < len(path) + 200


def test_sources_that_do_not_exist(tmp_path):
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            load_records("countdown", str(path))
    with pytest.raises(UserError, match="task=chess: "):
        load_records("chess", "published")


def test_repeated_records_are_skipped_and_counted(tmp_path):
    """The same puzzle in two spellings is one record, and the first is kept."""
    lines = ['{"numbers": [1], "target": 1}', '{"nums": [2], "target": 2}']
    path = write(tmp_path / "a.jsonl", "\n".join([*lines, '{"input": "1", "output": "1"}']))
    rejects, strict = Rejects("error"), Rejects("strict", "eval.bad_records")
    records = load_records("countdown", path, rejects)
    assert [record.fields["target"] for record in records] == [1, 2]
    assert [record.id for record in records] == ["a.jsonl-0", "a.jsonl-1"]
    message = refusal(load_records, "countdown", path, strict)
    assert "eval.bad_records=error" in message
    for each in (*rejects.repeated, message):
        assert (f"{path}:3" in each, f"{path}:1" in each) == (True, True)
    assert len(rejects.repeated) == 1
    assert len(load_records("countdown", path)) == 2


def test_bad_records_are_left_out_where_they_may_be(tmp_path):
    lines = ['{"numbers": [1], "target": 1}', "{", '{"nums": [], "target": 2}']
    path, rejects = write(tmp_path / "a.jsonl", "\n".join(lines)), Rejects("skip")
    assert len(load_records("countdown", path, rejects)) == 1
    assert [reason[: len(path) + 2] for reason in rejects.reasons] == [f"{path}:2", f"{path}:3"]
    message = refusal(load_records, "countdown", path, Rejects("error", "eval.bad_records"))
    assert message.startswith(f"{path}:2: ")
    assert "eval.bad_records=skip" in message


MATH = [
    *(({"answer": 204}, "204"), ({"answer": 204.0}, "204"), ({"answer": -0.25}, "-0.25")),
    *(({"answer": 1e-7}, "0.0000001"), ({"answer": 0}, "0")),
    *(({"answer": no, "solution": r"\boxed{7}"}, "7") for no in (None, "", float("nan"))),
]
SOLUTIONS = [
    *((r"$\boxed 5$.", "5"), (r"$\boxed5$", "5"), (r"\(\boxed 24\) feet", "24")),
    *((r"we get \boxed 5.", "5"), (r"we get \boxed 5 in all", "5"), (r"$\boxed\pi$", r"\pi")),
    *((r"$x = \boxed \frac{1}{2}$", r"\frac{1}{2}"), (r"$\boxed {\frac{1}{2}}$", r"\frac{1}{2}")),
    *((r"\fbox{5}", "5"), (r"\fbox{$\frac12$}", r"\frac12"), (r"\boxed{1}, then \fbox{2}", "2")),
    *((r"\fbox{1}, then \boxed{2}", "2"), (r"\boxed{\$5}", r"\$5")),
]


def test_answers_of_math(tmp_path):
    for row, answer in [*MATH, *(({"solution": text}, answer) for text, answer in SOLUTIONS)]:
        path = write(tmp_path / "a.jsonl", json.dumps({"problem": "p"} | row))
        (record,) = load_records("math500", path)
        assert record.fields == {"problem": "p", "answer": answer}


def test_answers_of_math_that_are_none(tmp_path):
    answers = (True, float("nan"), float("inf"), ["5"], "\ud83d", " ")
    solutions = (r"\boxed{5", r"$\boxed $", r"\boxedx 5")
    for row in (*({"answer": x} for x in answers), *({"solution": x} for x in solutions)):
        path = write(tmp_path / "a.jsonl", json.dumps({"problem": "p"} | row))
        with pytest.raises(UserError, match=r"a\.jsonl:1: answer "):
            load_records("math500", path)


def test_columns_that_are_missing_or_wrong(tmp_path):
    for task, row, key in [
        ("gsm8k", {"question": "q", "answer": "many"}, "answer"),
        ("gsm8k", {"question": " ", "answer": "#### 1"}, "question"),
        ("gsm8k", {"answer": "#### 1"}, "question"),
        ("math500", {"problem": "p", "solution": "none"}, "answer"),
        ("math500", {"answer": "1"}, "problem"),
        ("sudoku", {"puzzle": 4320004330100004}, "Puzzle"),
        ("math500", {"prompt": "p", "completion": "c"}, r"problem .*\[prompt,completion\]"),
    ]:
        path = write(tmp_path / "a.jsonl", json.dumps(row))
        with pytest.raises(UserError, match=rf"a\.jsonl:1: {key}"):
            load_records(task, path)


def test_answers_of_gsm8k(tmp_path):
    for answer in (204, 204.0, 0.5, "#### 1,000", "5"):
        path = write(tmp_path / "a.jsonl", json.dumps({"Question": "q", "Answer": answer}))
        (record,) = load_records("gsm8k", path)
        text = "204" if answer == 204 else str(answer)
        assert record.fields == {"question": "q", "answer": text}
