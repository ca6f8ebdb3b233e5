"""`score` on whole stored generation files, on broken lines, and its printed form."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from weft_rl.errors import UserError
from weft_rl.score import ScoreConfig, run

FIXTURES = Path(__file__).parent / "fixtures"
TASKS = ("sudoku", "countdown", "gsm8k", "math500")
FILES = {task: FIXTURES / f"{task}_128.jsonl" for task in TASKS}
SUDOKU = {
    "question": "Solve the following Sudoku puzzle: 4320004330100004\n",
    "generation": "<answer>\n4321124334122134\n</answer>",
    "ground_truth": "4321124334122134",
}
COUNTDOWN = {"generation": r"\boxed{2*4-3}", "ground_truth": [[2, 3, 4], 5]}


def score_file(path, task, strict=None, workers=1, **options):
    """What is printed of a file."""
    with redirect_stdout(io.StringIO()) as printed:
        assert run(ScoreConfig(task, str(path), strict, workers=workers, **options)) == 0
    return json.loads(printed.getvalue())


@pytest.mark.parametrize(
    ("task", "correct", "total", "score"),
    [
        ("sudoku", 240, 2048, 11.72),
        ("countdown", 53, 256, 20.70),
        ("gsm8k", 783, 1130, 69.29),
        ("math500", 130, 500, 26.0),
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
        ("math500", 17, 34, 1, "'15.975' is judged by other rules: by value"),
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
    (row,) = score_file(write(tmp_path, COUNTDOWN | {"generation": generation}), "countdown")[
        "disagreements"
    ]
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
    "truth",
    [None, 5, [[2, 3, 4]], [[2, 3, "4"], 5], [[2, 3, 4], 5.0], [[2, 3, True], 5], ["23", 5]],
)
def test_broken_countdown_truth(tmp_path, truth):
    result = score_file(
        write(tmp_path, COUNTDOWN, COUNTDOWN | {"ground_truth": truth}), "countdown"
    )
    assert result["broken"] == [
        {"line": 2, "reason": "`ground_truth` must be [[numbers], target], all integers"}
    ]


def test_files_without_a_usable_record(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        score_file(tmp_path / "missing", "sudoku")
    with pytest.raises(UserError, match=r"a\.jsonl: is empty"):
        score_file(write(tmp_path, ""), "sudoku")
    with pytest.raises(UserError, match=r"a\.jsonl:2: not JSON"):
        score_file(write(tmp_path, "", "{"), "sudoku")


@pytest.mark.parametrize("content", [b"\xff\xfe{}", json.dumps(SUDOKU).encode("utf-16")])
def test_text_that_is_not_utf_8(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jsonl:1: is not UTF-8 text \(.*\); convert it"):
        score_file(tmp_path / "a.jsonl", "sudoku")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json.dumps(SUDOKU).encode("utf-8-sig"))
    assert score_file(tmp_path / "a.jsonl", "sudoku")["n"] == 1


def test_one_json_object_is_printed(tmp_path):
    path = write(tmp_path, COUNTDOWN | {"generation": "\ud800"}, COUNTDOWN)
    assert score_file(path, "countdown", per_record=False) == {
        **{"task": "countdown", "strict": None, "n": 2, "unit": "records"},
        **{"correct": 1, "total": 2, "score": 50.0, "flags": {}},
        **{"disagreements": [], "broken": []},
    }
    assert len(score_file(path, "countdown")["per_record"]) == 2


def test_unknown_options_values():
    with pytest.raises(UserError, match="task=chess: must be one of sudoku, countdown, gsm8k"):
        ScoreConfig("chess", "x")
    with pytest.raises(UserError, match="strict=d2: must be d1 or null"):
        ScoreConfig("sudoku", "x", "d2")
    with pytest.raises(UserError, match="solutions=all: must be one or any"):
        ScoreConfig("sudoku", "x", solutions="all")
    with pytest.raises(UserError, match="solutions=any: is for task=sudoku without strict"):
        ScoreConfig("sudoku", "x", "d1", solutions="any")
    with pytest.raises(UserError, match="workers=0: must be at least 1"):
        ScoreConfig("sudoku", "x", workers=0)


@pytest.mark.parametrize("task", TASKS)
def test_several_processes_say_the_same(task, tmp_path):
    rows = FILES[task].read_text().splitlines()[:60]
    lines = [row for row in rows for _ in range(40)]  # several parcels
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines[:5], "{", *lines[5:]]))
    assert score_file(path, task, workers=2) == score_file(path, task, workers=1)


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
        *(("math500", "null"), ("math500", "5"), ("math500", '" "')),
    ],
)
def test_broken_truth_of_the_other_tasks(tmp_path, task, truth):
    good = json.dumps({"generation": r"\boxed{18}", "ground_truth": "18"})
    result = score_file(write(tmp_path, good, good.replace('"18"', truth)), task)
    assert (result["n"], [row["line"] for row in result["broken"]]) == (1, [2])


def test_a_line_that_is_too_long_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr("weft_rl.score._LONGEST_LINE", 4096)
    long = COUNTDOWN | {"generation": "x" * 10_000}
    result = score_file(write(tmp_path, COUNTDOWN, long, COUNTDOWN), "countdown")
    assert result["broken"] == [{"line": 2, "reason": "longer than 4096 bytes"}]
    assert [row["line"] for row in result["per_record"]] == [1, 3]


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak_kib(count):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            for i in range(count):
                row = COUNTDOWN | {"generation": f"{i} " + r"\boxed{4**2//3}"}  # a disagreement
                file.write(json.dumps(row) + "\n")
        code = (
            "import sys; from weft_rl.score import main; "
            f"main(['task=countdown', 'generations={path}', 'workers=1']); "
            # not getrusage: it starts from the size of the process that started this one
            "lines = [line.split() for line in open('/proc/self/status')]; "
            "print(next(line[1] for line in lines if line[0] == 'VmHWM:'), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert json.loads(done.stdout)["n"] == count
        return int(done.stderr)

    # the printed rows alone are 250 bytes a record: some 14 MiB for the 60,000
    assert peak_kib(62_000) - peak_kib(2_000) < 6_000


def test_no_torch_on_the_way():
    modules = "weft_rl.score, weft_rl.data.records, weft_rl.data.sudoku, weft_rl.data.countdown"
    program = f"import sys, {modules}, weft_rl.data.baselines; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
