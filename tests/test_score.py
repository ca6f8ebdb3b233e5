"""`score` on whole stored generation files, on broken lines, and its printed form."""

import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pandas
import pytest

from weft_rl import score
from weft_rl.cli import execute
from weft_rl.errors import UserError
from weft_rl.evaluation.generate import summarize
from weft_rl.evaluation.scores import score_completions
from weft_rl.rewards.registry import REWARDS
from weft_rl.score import ScoreConfig

FIXTURES = Path(__file__).parent / "fixtures"
TASKS = ("sudoku", "countdown", "gsm8k", "math500")
FILES = {task: FIXTURES / f"{task}_128.jsonl" for task in TASKS}
SUDOKU = {
    "question": "Solve the following Sudoku puzzle: 4320004330100004\n",
    "generation": "<answer>\n4321124334122134\n</answer>",
    "ground_truth": "4321124334122134",
}
COUNTDOWN = {"generation": r"\boxed{2*4-3}", "ground_truth": [[2, 3, 4], 5]}


def score_file(path, task, strict=None, **options):
    """The result for a file, as JSON has it."""
    return json.loads(json.dumps(score.score_file(ScoreConfig(task, str(path), strict, **options))))


@pytest.mark.parametrize(
    ("task", "correct", "total", "score"),
    [
        *(("sudoku", 240, 2048, 11.72), ("countdown", 53, 256, 20.70)),
        *(("gsm8k", 783, 1130, 69.29), ("math500", 130, 500, 26.0)),
    ],
)
def test_strict_equals_the_published_verdicts(task, correct, total, score):
    result = score_file(FILES[task], task, "d1")
    rows = [json.loads(line) for line in FILES[task].read_text().splitlines()]
    published = [row.get("d1_correct_cells", row.get("d1_correct")) for row in rows]
    assert [row["correct"] for row in result["per_record"]] == published
    assert [row["line"] for row in result["per_record"]] == list(range(1, len(rows) + 1))
    assert (result["correct"], result["total"], result["score"]) == (correct, total, score)
    assert (result["n"], result["disagreements"], result["broken"]) == (len(rows), [], [])


@pytest.mark.parametrize(
    ("task", "count", "line", "here", "reason"),
    [
        ("sudoku", 1, 185, 1, "'132132132132132132'; d1 reads '<answer>132132132132132132'"),
        ("countdown", 1, 194, 1, "96 - 48  + 26"),
        ("gsm8k", 8, 244, 1, "the answer is '43,500'; d1 reads '43'"),
        pytest.param(
            *("math500", 17, 34, 1, "'15.975' is judged by other rules: by value"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_each_disagreement_is_listed(task, count, line, here, reason):
    result = score_file(FILES[task], task)
    listed = {row["line"]: row for row in result["disagreements"]}
    assert len(listed) == count
    assert (listed[line]["correct"], listed[line]["d1"]) == (here, 1 - here)
    assert reason in listed[line]["reason"]
    # whatever is not listed agrees
    strict = score_file(FILES[task], task, "d1")
    differing = [
        ours["line"]
        for ours, theirs in zip(result["per_record"], strict["per_record"], strict=True)
        if ours["correct"] != theirs["correct"]
    ]
    assert differing == list(listed)


def write(tmp_path, *rows):
    path = tmp_path / "a.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize(
    ("generation", "here", "d1", "reason"),
    [
        ("2*4-3", 0, 1, "no answer in a tag or box before the end"),
        (r"\boxed{4**2//3}", 0, 1, "judged by other rules"),
        (r"<|eot_id|>\boxed{2*4-3}", 0, 1, "no answer in a tag or box before the end"),
        (r"\boxed{2*4-3}<|eot_id|>\boxed{1}", 1, 0, "d1 reads '1'"),
        (r"\boxed{\frac{4}{2}+3}", 1, 0, "judged by other rules"),
    ],
)
def test_reasons(tmp_path, generation, here, d1, reason):
    path = write(tmp_path, COUNTDOWN | {"generation": generation})
    (row,) = score_file(path, "countdown")["disagreements"]
    assert (row["correct"], row["d1"]) == (here, d1)
    assert reason in row["reason"]


def test_flags_of_an_answer(tmp_path):
    changed = SUDOKU | {"generation": "<answer>1321124334122134</answer>"}
    rows = score_file(write(tmp_path, SUDOKU, changed), "sudoku")["per_record"]
    assert rows == [
        {"line": 1, "correct": 8, "total": 8},
        {"line": 2, "correct": 8, "total": 8, "flags": ["clue"]},
    ]


def test_broken_lines_are_reported_and_count_nowhere(tmp_path):
    broken = [
        *('{"question": ', "[1]", "\ud800", "[" * 100_000, '{"generation": ' + "9" * 5000 + "}"),
        *(SUDOKU | {"generation": None}, SUDOKU | {"question": "which?"}),
        *(SUDOKU | {"ground_truth": "1" * 16}, SUDOKU | {"ground_truth": "1234341221434321"}),
        *({"generation": "x"}, SUDOKU | {"question": "4321124334122134"}),
    ]
    wanted = score_file(write(tmp_path, SUDOKU), "sudoku")
    result = score_file(write(tmp_path, *broken, "", SUDOKU), "sudoku")
    assert [row["line"] for row in result.pop("broken")] == list(range(1, len(broken) + 1))
    assert [row["line"] for row in result["per_record"]] == [len(broken) + 2]
    for key in ("n", "correct", "total", "score"):
        assert result[key] == wanted[key]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        *((b"", r"a\.jsonl: is empty"), (b"\n{", r"a\.jsonl:2: not JSON")),
        (json.dumps(SUDOKU).encode("utf-16"), "UTF-16"),
        (gzip.compress(b'{"a": 1}' * 1000, mtime=0)[:40], "cannot be read after record 0"),
        (b'{"a": 1}\0\0', "NUL|not JSON"),
        (json.dumps([5], indent=1).encode(), "record 1: must be a JSON object"),
    ],
)
def test_files_without_a_usable_record(tmp_path, content, problem):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.jsonl.*({problem})|^{problem}|/{problem}"):
        score_file(tmp_path / "a.jsonl", "sudoku")


def test_places_that_are_no_files(tmp_path):
    for place in (tmp_path, tmp_path / "missing", "/dev/null", "/dev/zero"):
        with pytest.raises(UserError, match=f"{place}: cannot be read"):
            score_file(place, "sudoku")


def test_bytes_that_are_not_utf_8(tmp_path):
    content = json.dumps(SUDOKU).encode("utf-8-sig") + b'\n{"generation": "\xff"}'
    (tmp_path / "a.jsonl").write_bytes(content)
    result = score_file(tmp_path / "a.jsonl", "sudoku")
    assert (result["n"], [row["line"] for row in result["broken"]]) == (1, [2])


def test_one_json_object_is_printed(tmp_path, capsys):
    path = write(tmp_path, COUNTDOWN | {"generation": "\ud800"}, COUNTDOWN)
    assert score_file(path, "countdown", per_record=False) == {
        **{"task": "countdown", "strict": None, "n": 2, "unit": "records"},
        **{"correct": 1, "total": 2, "score": 50.0, "flags": {}},
        **{"disagreements": [], "broken": []},
    }
    assert score.main(["task=countdown", f"generations={path}"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == score_file(path, "countdown")
    assert (printed.count("\n"), len(json.loads(printed)["per_record"])) == (1, 2)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        *(({"task": "chess"}, "task=chess"), ({"strict": "d2"}, "strict=d2")),
        ({"solutions": "all"}, "solutions=all"),
        ({"strict": "d1", "solutions": "any"}, "solutions=any"),
        ({"task": "gsm8k", "solutions": "any"}, "solutions=any"),
    ],
)
def test_wrong_options(options, key):
    with pytest.raises(UserError, match=f"^{key}: "):
        ScoreConfig(**{"task": "sudoku", "generations": "x"} | options)


def test_any_solution_of_a_puzzle(tmp_path):
    # rows 2 and 4 of the empty puzzle's first solution exchanged: full, and no less a solution
    puzzle = SUDOKU | {"question": "Sudoku puzzle: 1234000000000000", "ground_truth": "1234" * 4}
    key, other = "1234341221434321", "1234341243212143"
    rows = [puzzle | {"ground_truth": key, "generation": f"<answer>{other}</answer>"}]
    rows.append(rows[0] | {"generation": f"<answer>{other[:-1]}</answer>"})  # a cell is missing
    path = write(tmp_path, *rows)
    assert [row["correct"] for row in score_file(path, "sudoku")["per_record"]] == [4, 4]
    result = score_file(path, "sudoku", solutions="any")
    assert result["per_record"] == [
        {"line": 1, "correct": 12, "total": 12, "flags": ["other solution"]},
        {"line": 2, "correct": 11, "total": 12, "flags": ["length"]},
    ]
    assert result["flags"] == {"other solution": 1, "length": 1}


def test_a_truth_that_is_null_is_flagged_and_never_met(tmp_path):
    path = write(tmp_path, {"generation": r"\boxed{-10}", "ground_truth": None})
    for strict in (None, "d1"):
        result = score_file(path, "gsm8k", strict)
        assert result["per_record"] == [
            {"line": 1, "correct": 0, "total": 1, "flags": ["no ground truth"]}
        ]
        assert result["flags"] == {"no ground truth": 1}


@pytest.mark.parametrize(
    ("task", "truth"),
    [
        *(("gsm8k", '"many"'), ("gsm8k", "[18]"), ("gsm8k", "true"), ("gsm8k", "NaN")),
        *(("gsm8k", "1e400"), pytest.param("gsm8k", "9" * 4000, id="long")),
        *(("math500", "null"), ("math500", "5"), ("math500", '" "'), ("countdown", "null")),
        *(("countdown", "[[2, 3, 4]]"), ("countdown", '[[2, 3, "4"], 5]')),
        *(("countdown", "[[2, 3, 4], 5.0]"), ("countdown", "[[2, true], 5]")),
        ("countdown", '["23", 5]'),
    ],
)
def test_a_wrong_ground_truth_is_broken(tmp_path, task, truth):
    good = json.dumps({"generation": r"\boxed{18}", "ground_truth": "18"})
    wrong = good.replace('"18"', truth)
    good = json.dumps(COUNTDOWN) if task == "countdown" else good
    result = score_file(write(tmp_path, good, wrong), task)
    assert (result["n"], [row["line"] for row in result["broken"]]) == (1, [2])


def test_a_record_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("weft_rl.data.json_rows.LONGEST", 4096)
    long = COUNTDOWN | {"generation": "x" * 10_000}
    with pytest.raises(UserError, match=r"a\.jsonl:2: "):
        score_file(write(tmp_path, COUNTDOWN, long, COUNTDOWN), "countdown")


def test_no_torch_on_the_way():
    modules = "weft_rl.score, weft_rl.data.records, weft_rl.data.sudoku, weft_rl.data.countdown"
    program = f"import sys, {modules}, weft_rl.evaluation.baselines; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# --- a run's completions, and a task of one's own


def run_row(task, completion, fields):
    return {"stage": "rl", "id": "a", "task": task, "completion": completion, "fields": fields}


GRID = {"puzzle": "4320004330100004", "solution": "4321124334122134"}
EMPTIER = {"puzzle": "1234000000000000", "solution": "1234341221434321"}
RUN_ROWS = {
    "sudoku": [
        run_row("sudoku", "<answer>4321124334122134</answer>", GRID),
        # four of eight cells, and three of twelve: 50 and 25 percent
        run_row("sudoku", "<answer>4321114334142114</answer>", GRID),
        run_row("sudoku", "<answer>1234111111111111</answer>", EMPTIER),
        run_row("sudoku", "no answer", GRID),
    ],
    "countdown": [
        run_row("countdown", "<answer>2*4-3</answer>", {"numbers": [2, 3, 4], "target": 5}),
        run_row("countdown", "<answer>2*4</answer>", {"numbers": [2, 3, 4], "target": 5}),
    ],
    "gsm8k": [
        run_row("gsm8k", "<answer>1000</answer>", {"question": "q", "answer": "#### 1,000"}),
        run_row("gsm8k", "<answer>7</answer>", {"question": "q", "answer": "#### 1,000"}),
    ],
    "math500": [
        run_row("math500", r"\boxed{\frac{2}{4}}", {"problem": "p", "answer": "0.5"}),
        run_row("math500", r"\boxed{9^{9^{9}}}", {"problem": "p", "answer": "0.5"}),
    ],
}


@pytest.mark.parametrize("task", TASKS)
def test_completions_of_a_run_score_as_its_evaluation(tmp_path, task):
    rows = RUN_ROWS[task]
    texts, fields = [row["completion"] for row in rows], [row["fields"] for row in rows]
    entry = summarize([each.scores for each in score_completions(task, texts, fields)])
    result = score_file(write(tmp_path, *rows), task)
    assert (result["n"], result["score"]) == (len(rows), entry["score"])
    assert result["broken"] == []
    assert 0 < result["score"] < 100


def test_what_has_no_verdict_in_time_is_flagged(tmp_path):
    result = score_file(write(tmp_path, *RUN_ROWS["math500"]), "math500")
    assert [row.get("flags") for row in result["per_record"]] == [None, ["undecided"]]
    assert result["flags"] == {"undecided": 1}


@pytest.mark.parametrize(
    "row",
    [
        *(run_row("gsm8k", "x", {"answer": "#### 5"}), run_row("sudoku", 5, GRID)),
        *(run_row("sudoku", None, GRID), run_row("sudoku", "x", {"puzzle": "1"})),
        *(run_row("sudoku", "x", {"puzzle": 5, "solution": None}), run_row("sudoku", "x", [1])),
        run_row("sudoku", "x", {}),
    ],
)
def test_broken_lines_of_a_run(tmp_path, row):
    result = score_file(write(tmp_path, row, *RUN_ROWS["sudoku"]), "sudoku")
    assert ([each["line"] for each in result["broken"]], result["n"]) == ([1], 4)


OWN = """
from weft_rl.data.tasks import Task

def fields(row):
    return {"digits": row["digits"]}

def half(completion, digits, **_):
    return %s

def same(completion, digits, **_):
    return completion == digits

TASK = Task(lambda fields: fields["digits"], fields, {"half": half}, {"half": half, "same": same})
"""


@pytest.fixture
def own(tmp_path):
    """A task file whose first score is the given Python expression; it is forgotten afterwards."""
    kept = dict(REWARDS)

    def make(value="len(completion) / 4"):
        path = tmp_path / "own.py"
        path.write_text(OWN % value)
        return str(path)

    yield make
    REWARDS.clear()
    REWARDS.update(kept)


def test_a_task_of_ones_own(tmp_path, own):
    rows = [run_row("elsewhere/own.py", text, {"digits": "12"}) for text in ("12", "1", "")]
    rows.append({"generation": "1234", "digits": "1234"})  # a row as the task's files have them
    rows.append({"generation": "1234"})
    result = score_file(write(tmp_path, *rows), own())
    assert [row["correct"] for row in result["per_record"]] == [0.5, 0.25, 0, 1]
    assert (result["n"], result["score"], result["correct"], result["total"]) == (4, 43.75, 1.75, 4)
    assert result["scores"] == {"half": 43.75, "same": 50.0}
    assert [row["line"] for row in result["broken"]] == [5]
    with pytest.raises(UserError, match="strict=d1"):
        ScoreConfig(own(), "x", "d1")


@pytest.mark.parametrize(
    "value",
    [
        *("2.0", "7.5", "-0.5", "float('nan')", "float('inf')", "-float('inf')", "None", "'0.5'"),
        *("b'1'", "[1]", "{}", "10 ** 400", "1j", "1 / 0", "digits.missing", "object()", "1.001"),
    ],
)
def test_a_score_outside_its_range_is_refused(tmp_path, own, capfd, value):
    path = write(tmp_path, *(run_row("own", "12", {"digits": "12"}) for _ in range(3)))
    done = execute("score", score.main, [f"task={own(value)}", f"generations={path}"])
    out, err = capfd.readouterr()
    assert (done, out, err.count("\n")) == (2, "", 1)
    assert "half" in err


@pytest.mark.parametrize(
    ("value", "score"),
    [
        *(("True", 100.0), ("False", 0.0), ("1", 100.0), ("sum([.1] * 3) + .7", 100.0)),
        *(("__import__('numpy').float32(.5)", 50.0), ("__import__('numpy').array(.25)", 25.0)),
        *(("1.0000000002", 100.0), ("-1e-12", 0.0)),
        ("__import__('fractions').Fraction(1, 4)", 25.0),
    ],
)
def test_numbers_of_any_kind_are_scores(tmp_path, own, value, score):
    path = write(tmp_path, run_row("own", "12", {"digits": "12"}))
    assert score_file(path, own(value))["score"] == score


ROWS = [SUDOKU, SUDOKU | {"generation": "no answer"}, SUDOKU | {"ground_truth": "1"}]
LINES = "\n".join(map(json.dumps, ROWS)).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("a.jsonl.gz", gzip.compress(LINES)), ("a.json", json.dumps(ROWS, indent=1).encode())),
        ("a.parquet", pandas.DataFrame(ROWS).to_parquet()),
    ],
)
def test_files_of_other_forms(tmp_path, name, content):
    """tests/test_files.py has every form of file."""
    (tmp_path / name).write_bytes(content)
    result = score_file(tmp_path / name, "sudoku")
    assert [row["correct"] for row in result["per_record"]] == [8, 0]
    assert [row["line"] for row in result["per_record"] + result["broken"]] == [1, 2, 3]


def test_a_pipe_is_read_once(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(LINES,))
    writer.start()
    result = score_file(path, "sudoku")
    writer.join(60)
    assert ([row["correct"] for row in result["per_record"]], len(result["broken"])) == ([8, 0], 1)
