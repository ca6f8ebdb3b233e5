"""`score` on whole stored generation files, on broken lines, and its printed form."""

import json
import os
import threading
from functools import cache
from pathlib import Path

import pytest
from run_folders import read_lines
from task_registry import restored_registries

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


@cache
def stored(task, strict=None):
    return score_file(FILES[task], task, strict)


def lines_of(rows):
    return [row["line"] for row in rows]


PUBLISHED = {
    **{"sudoku": (240, 2048, 11.72), "countdown": (53, 256, 20.70)},
    **{"gsm8k": (783, 1130, 69.29), "math500": (130, 500, 26.0)},
}


@pytest.mark.parametrize("task", TASKS)
def test_strict_equals_the_published_verdicts(task):
    result = stored(task, "d1")
    rows = read_lines(FILES[task])
    published = [row.get("d1_correct_cells", row.get("d1_correct")) for row in rows]
    assert [row["correct"] for row in result["per_record"]] == published
    assert lines_of(result["per_record"]) == list(range(1, len(rows) + 1))
    assert (result["correct"], result["total"], result["score"]) == PUBLISHED[task]
    assert (result["n"], result["disagreements"], result["broken"]) == (len(rows), [], [])


@pytest.mark.parametrize(
    ("task", "count", "line"),
    [
        *(("sudoku", 1, 185), ("countdown", 1, 194), ("gsm8k", 8, 244)),
        pytest.param("math500", 17, 34, marks=pytest.mark.slow),
    ],
)
def test_each_disagreement_is_listed(task, count, line):
    result = stored(task)
    listed = {row["line"]: row for row in result["disagreements"]}
    assert len(listed) == count
    assert (listed[line]["correct"], listed[line]["d1"]) == (1, 0)
    # whatever is not listed agrees
    pairs = zip(result["per_record"], stored(task, "d1")["per_record"], strict=True)
    differing = [ours["line"] for ours, d1 in pairs if ours["correct"] != d1["correct"]]
    assert differing == list(listed)


def write(tmp_path, *rows):
    path = tmp_path / "a.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return path


def test_reasons(tmp_path):
    for generation, here, reason in [
        *(("2*4-3", 0, "no answer in a tag"), (r"\boxed{4**2//3}", 0, "by other rules")),
        (r"<|eot_id|>\boxed{2*4-3}", 0, "no answer in a tag"),
        (r"\boxed{2*4-3}<|eot_id|>\boxed{1}", 1, "d1 reads '1'"),
        (r"\boxed{\frac{4}{2}+3}", 1, "by other rules"),
    ]:
        path = write(tmp_path, COUNTDOWN | {"generation": generation})
        (row,) = score_file(path, "countdown")["disagreements"]
        assert (row["correct"], row["d1"]) == (here, 1 - here)
        assert reason in row["reason"]


def test_broken_lines_are_reported_and_count_nowhere(tmp_path):
    broken = [
        *('{"question": ', "[1]", "\ud800", "[" * 100_000, '{"generation": ' + "9" * 5000 + "}"),
        *(SUDOKU | {"generation": None}, SUDOKU | {"question": "which?"}, {"generation": "x"}),
        *(SUDOKU | {"ground_truth": grid} for grid in ("1" * 16, "1234341221434321")),
        SUDOKU | {"question": "4321124334122134"},
    ]
    wanted = score_file(write(tmp_path, SUDOKU), "sudoku")
    result = score_file(write(tmp_path, *broken, "", SUDOKU), "sudoku")
    assert lines_of(result["broken"]) == list(range(1, len(broken) + 1))
    assert lines_of(result["per_record"]) == [len(broken) + 2]
    for key in ("n", "correct", "total", "score"):
        assert result[key] == wanted[key]


def test_files_without_a_usable_record(tmp_path):
    """tests/test_files.py has every form of file, and what may be wrong with one."""
    path = tmp_path / "a.jsonl"
    for content, place in ((b"", r"a\.jsonl: "), (b"\n{", r"a\.jsonl:2: ")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=place):
            score_file(path, "sudoku")
    for place in (tmp_path, tmp_path / "missing", "/dev/null", "/dev/zero"):
        with pytest.raises(UserError, match=f"^{place}: "):
            score_file(place, "sudoku")


def test_one_json_object_is_printed(tmp_path, capsys):
    path = write(tmp_path, COUNTDOWN | {"generation": "\ud800"}, COUNTDOWN)
    head = {"task": "countdown", "strict": None, "n": 2, "unit": "records"}
    counts = {"correct": 1, "total": 2, "score": 50.0, "flags": {}}
    expected = head | counts | {"disagreements": [], "broken": []}
    assert score_file(path, "countdown", per_record=False) == expected
    assert score.main(["task=countdown", f"generations={path}"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == score_file(path, "countdown")
    assert (printed.count("\n"), len(json.loads(printed)["per_record"])) == (1, 2)


@pytest.mark.parametrize(("key", "value"), [("task", "chess"), ("strict", "d2")])
def test_wrong_options(key, value):
    with pytest.raises(UserError, match=f"^{key}={value}: "):
        ScoreConfig(**{"task": "sudoku", "generations": "x"} | {key: value})


def test_only_the_key_counts_and_a_changed_clue_is_flagged(tmp_path):
    # rows 2 and 4 of the key exchanged: another solution of the puzzle
    puzzle = {"question": "Sudoku puzzle: 1234000000000000", "ground_truth": "1234341221434321"}
    other = puzzle | {"generation": "<answer>1234341243212143</answer>"}
    changed = SUDOKU | {"generation": "<answer>1321124334122134</answer>"}
    assert score_file(write(tmp_path, SUDOKU, changed, other), "sudoku")["per_record"] == [
        {"line": 1, "correct": 8, "total": 8},
        {"line": 2, "correct": 8, "total": 8, "flags": ["clue"]},
        {"line": 3, "correct": 4, "total": 12, "flags": ["other solution"]},
    ]


def test_a_truth_that_is_null_is_flagged_and_never_met(tmp_path):
    path = write(tmp_path, {"generation": r"\boxed{-10}", "ground_truth": None})
    for strict in (None, "d1"):
        result = score_file(path, "gsm8k", strict)
        row = {"line": 1, "correct": 0, "total": 1, "flags": ["no ground truth"]}
        assert (result["per_record"], result["flags"]) == ([row], {"no ground truth": 1})


WRONG_TRUTHS = {
    "gsm8k": ['"many"', "[18]", "true", "NaN", "1e400", "9" * 4000],
    "math500": ["null", "5", '" "'],
    "countdown": [
        *("null", "[[2, 3, 4]]", '[[2, 3, "4"], 5]', "[[2, 3, 4], 5.0]", "[[2, true], 5]"),
        '["23", 5]',
    ],
}


@pytest.mark.parametrize("task", WRONG_TRUTHS)
def test_a_wrong_ground_truth_is_broken(tmp_path, task):
    good = json.dumps({"generation": r"\boxed{18}", "ground_truth": "18"})
    wrong = [good.replace('"18"', truth) for truth in WRONG_TRUTHS[task]]
    good = json.dumps(COUNTDOWN) if task == "countdown" else good
    result = score_file(write(tmp_path, good, *wrong), task)
    assert (result["n"], lines_of(result["broken"])) == (1, [*range(2, len(wrong) + 2)])


def run_rows(task, *completions, **fields):
    row = {"stage": "rl", "id": "a", "task": task, "fields": fields}
    return [row | {"completion": text} for text in completions]


GRID = {"puzzle": "4320004330100004", "solution": "4321124334122134"}
EMPTIER = {"puzzle": "1234000000000000", "solution": "1234341221434321"}
# four of eight cells, and three of twelve: 50 and 25 percent
CELLS = [f"<answer>{grid}</answer>" for grid in ("4321124334122134", "4321114334142114")]
RUN_ROWS = {
    "sudoku": [
        *run_rows("sudoku", *CELLS, "no answer", **GRID),
        *run_rows("sudoku", "<answer>1234111111111111</answer>", **EMPTIER),
    ],
    "countdown": run_rows(
        *("countdown", "<answer>2*4-3</answer>", "<answer>2*4</answer>"),
        numbers=[2, 3, 4],
        target=5,
    ),
    "gsm8k": run_rows(
        *("gsm8k", "<answer>1000</answer>", "<answer>7</answer>"), question="q", answer="#### 1,000"
    ),
    "math500": run_rows(
        "math500", r"\boxed{\frac{2}{4}}", r"\boxed{9^{9^{9}}}", problem="p", answer="0.5"
    ),
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
    if task == "math500":  # the second has no verdict in time
        assert [row.get("flags") for row in result["per_record"]] == [None, ["undecided"]]
        assert result["flags"] == {"undecided": 1}


def test_broken_lines_of_a_run(tmp_path):
    row = RUN_ROWS["sudoku"][0]
    fields = ({"puzzle": "1"}, {"puzzle": 5, "solution": None}, [1], {})
    changes = [{"task": "gsm8k", "fields": {"answer": "#### 5"}}, {"completion": 5}]
    changes += [{"completion": None}, *({"fields": each} for each in fields)]
    result = score_file(write(tmp_path, *(row | each for each in changes), row), "sudoku")
    assert (lines_of(result["broken"]), result["n"]) == ([*range(1, len(changes) + 1)], 1)


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
    """Write a task file whose first score is the given Python expression."""

    def write_task(value="len(completion) / 4"):
        path = tmp_path / f"{len(REWARDS)}" / "own.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(OWN % value)
        return str(path)

    with restored_registries():
        yield write_task


def test_a_task_of_ones_own(tmp_path, own):
    rows = run_rows("elsewhere/own.py", "12", "1", "", digits="12")
    # rows as the task's files have them
    rows += [{"generation": "1234", "digits": "1234"}, {"generation": "1234"}]
    result = score_file(write(tmp_path, *rows), own())
    assert [row["correct"] for row in result["per_record"]] == [0.5, 0.25, 0, 1]
    assert (result["n"], result["score"], result["correct"], result["total"]) == (4, 43.75, 1.75, 4)
    assert result["scores"] == {"half": 43.75, "same": 50.0}
    assert lines_of(result["broken"]) == [5]
    with pytest.raises(UserError, match="strict=d1"):
        ScoreConfig(own(), "x", "d1")


OUTSIDE = "2.0 7.5 -0.5 1.001 float('nan') float('inf') -float('inf') None '0.5' b'1' [1] {} 1/0"
MISTAKES = ["1j", "10**400", "digits.missing", "object()"]


@pytest.mark.slow
@pytest.mark.parametrize("value", [*OUTSIDE.split(), *MISTAKES])
def test_a_score_outside_its_range_is_refused(tmp_path, own, capfd, value):
    path = write(tmp_path, *run_rows("own", *["12"] * 3, digits="12"))
    done = execute("score", score.main, [f"task={own(value)}", f"generations={path}"])
    out, err = capfd.readouterr()
    assert (done, out, err.count("\n")) == (2, "", 1)
    assert "half" in err


def test_numbers_of_any_kind_are_scores(tmp_path, own):
    path = write(tmp_path, *run_rows("own", "12", digits="12"))
    for value, wanted in [
        *(("True", 100.0), ("False", 0.0), ("1", 100.0), ("sum([.1] * 3) + .7", 100.0)),
        *(("__import__('numpy').float32(.5)", 50.0), ("__import__('numpy').array(.25)", 25.0)),
        *(("1.0000000002", 100.0), ("-1e-12", 0.0)),
        ("__import__('fractions').Fraction(1, 4)", 25.0),
    ]:
        assert score_file(path, own(value))["score"] == wanted


def test_a_pipe_is_read_once(tmp_path):
    path, rows = tmp_path / "pipe", [SUDOKU, SUDOKU | {"generation": "no answer"}, {}]
    os.mkfifo(path)
    content = "\n".join(map(json.dumps, rows))
    writer = threading.Thread(target=path.write_text, args=(content,))
    writer.start()
    result = score_file(path, "sudoku")
    writer.join(60)
    assert [row["correct"] for row in result["per_record"]] == [8, 0]
    assert lines_of(result["broken"]) == [3]
