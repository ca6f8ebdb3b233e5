"""Reading records: the published files, every form, and errors for faulty ones."""

import json

import pytest
from refusals import refusal
from run_folders import written

from weft_rl.data.rejects import Rejects
from weft_rl.data.tasks import load_records
from weft_rl.errors import UserError
from weft_rl.rewards.sudoku_grid import completions

HEADER, GOOD = "Puzzle,Solution\n", "4320004330100004,4321124334122134"


def test_published_sudoku():
    records = load_records("sudoku", "published")
    assert len(records) == 500
    assert len({record.fields["solution"] for record in records}) == 229
    assert {record.fields["puzzle"].count("0") for record in records} == {8}
    solutions = [completions(record.fields["puzzle"]) for record in records]
    assert all(r.fields["solution"] in some for r, some in zip(records, solutions, strict=True))
    assert sum(len(some) > 1 for some in solutions) == 124
    assert (records[0].id, records[-1].id) == ("published-0", "published-499")
    assert records[0].fields == {"puzzle": "3102200002100320", "solution": "3142243142131324"}


def test_published_countdown():
    records = load_records("countdown", "published")
    assert len(records) == 256
    assert records[0].fields == {"numbers": [30, 100, 93], "target": 23}
    assert {len(record.fields["numbers"]) for record in records} == {3}


PUZZLE = {"puzzle": "4320004330100004", "solution": "4321124334122134"}
NUMBERS = {"numbers": [30, 100, 93], "target": 23}
TEXTS = ('"[30 100 93]"', '"(30, 100, 93)"', "[30.0, 100.0, 93.0]")
FORMS = [
    *('{"input": "30,100,93", "output": "23"}\n', '{"numbers": [30, 100, 93], "target": 23}'),
    '{"nums": [30, 100, 93], "target": 23}\r\n\r\n',
    '\ufeff{"input": "[30, 100, 93]", "output": 23, "more": 1}',
    *(f'{{"numbers": {text}, "target": 23.0, "input": null}}' for text in TEXTS),
]


def test_forms_of_puzzles(tmp_path):
    forms = [("countdown", "a.jsonl", text, NUMBERS) for text in FORMS]
    forms += [("sudoku", "a.csv", f"Puzzle,Solution\r\n{GOOD}\r\n\r\n", PUZZLE)]
    for task, name, text, fields in [*forms, ("sudoku", "a.jsonl", json.dumps(PUZZLE), PUZZLE)]:
        (record,) = load_records(task, str(written(tmp_path / name, text)))
        assert (record.id, record.task, record.fields) == (f"{name}-0", task, fields)


def gsm8k(answer, text):
    return "gsm8k", {"Question": "q", "Answer": answer}, {"question": "q", "answer": text}


def math(text, **row):
    return "math500", {"problem": "p"} | row, {"problem": "p", "answer": text}


SOLUTIONS = [
    *((r"$\boxed 5$.", "5"), (r"$\boxed5$", "5"), (r"\(\boxed 24\) feet", "24")),
    *((r"we get \boxed 5.", "5"), (r"we get \boxed 5 in all", "5"), (r"$\boxed\pi$", r"\pi")),
    *((r"$x = \boxed \frac{1}{2}$", r"\frac{1}{2}"), (r"$\boxed {\frac{1}{2}}$", r"\frac{1}{2}")),
    *((r"\fbox{5}", "5"), (r"\fbox{$\frac12$}", r"\frac12"), (r"\boxed{1}, then \fbox{2}", "2")),
    *((r"\fbox{1}, then \boxed{2}", "2"), (r"\boxed{\$5}", r"\$5")),
]
ANSWERS = [
    *(gsm8k(answer, "204") for answer in (204, 204.0)),
    *(gsm8k(answer, str(answer)) for answer in (0.5, "#### 1,000", "5")),
    *(math(text, answer=answer) for answer, text in ((204, "204"), (204.0, "204"), (0, "0"))),
    *(math(text, answer=answer) for answer, text in ((-0.25, "-0.25"), (1e-7, "0.0000001"))),
    *(math("7", answer=missing, solution=r"\boxed{7}") for missing in (None, "", float("nan"))),
    *(math(answer, solution=solution) for solution, answer in SOLUTIONS),
]


def test_forms_of_answers(tmp_path):
    for task, row, fields in ANSWERS:
        (record,) = load_records(task, str(written(tmp_path / "a.jsonl", json.dumps(row))))
        assert record.fields == fields


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
    path = str(written(tmp_path / name, text))
    message = refusal(load_records, task, path)
    assert message.startswith(f"{path}:{line}:".replace("::", ":"))
    assert key in message
    assert len(message) < len(path) + 200


ODD = (True, float("nan"), float("inf"), ["5"], "\ud83d", " ")
WRONG = [
    *(("gsm8k", {"question": " ", "answer": "#### 1"}, "question"), ("gsm8k", {}, "question")),
    *(("gsm8k", {"question": "q", "answer": "x"}, "answer"), ("math500", {}, "problem")),
    ("sudoku", {"puzzle": 4320004330100004}, "Puzzle"),
    ("math500", {"prompt": "p", "completion": "c"}, r"problem .*\[prompt,completion\]"),
    *(("math500", {"problem": "p", "answer": answer}, "answer ") for answer in ODD),
    *(
        ("math500", {"problem": "p", "solution": solution}, "answer ")
        for solution in ("none", r"\boxed{5", r"$\boxed $", r"\boxedx 5")
    ),
]


def test_columns_that_are_missing_or_wrong(tmp_path):
    for task, row, key in WRONG:
        path = written(tmp_path / "a.jsonl", json.dumps(row))
        with pytest.raises(UserError, match=rf"a\.jsonl:1: {key}"):
            load_records(task, str(path))


def test_sources_that_do_not_exist(tmp_path):
    for path in (tmp_path / "missing.jsonl", tmp_path):
        assert refusal(load_records, "countdown", str(path)).startswith(f"{path}: ")
    assert refusal(load_records, "chess", "published").startswith("task=chess: ")


def test_repeated_records_are_skipped_and_counted(tmp_path):
    """The same puzzle in two spellings is one record, and the first is kept."""
    lines = ['{"numbers": [1], "target": 1}', '{"nums": [2], "target": 2}']
    lines += ['{"input": "1", "output": "1"}']
    path, rejects = str(written(tmp_path / "a.jsonl", "\n".join(lines))), Rejects("error")
    records = load_records("countdown", path, rejects)
    assert [record.fields["target"] for record in records] == [1, 2]
    assert [record.id for record in records] == ["a.jsonl-0", "a.jsonl-1"]
    message = refusal(load_records, "countdown", path, Rejects("strict", "eval.bad_records"))
    assert "eval.bad_records=error" in message
    for each in (*rejects.repeated, message):
        assert (f"{path}:3" in each, f"{path}:1" in each) == (True, True)
    assert len(rejects.repeated) == 1
    assert load_records("countdown", path) == records


def test_bad_records_are_left_out_where_they_may_be(tmp_path):
    lines = ['{"numbers": [1], "target": 1}', "{", '{"nums": [], "target": 2}']
    path, rejects = str(written(tmp_path / "a.jsonl", "\n".join(lines))), Rejects("skip")
    assert len(load_records("countdown", path, rejects)) == 1
    assert [reason[: len(path) + 2] for reason in rejects.reasons] == [f"{path}:2", f"{path}:3"]
    message = refusal(load_records, "countdown", path, Rejects("error", "eval.bad_records"))
    assert message.startswith(f"{path}:2: ")
    assert "eval.bad_records=skip" in message
