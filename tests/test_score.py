"""`score` on whole stored generation files, on broken lines, and its printed form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from weft_rl.errors import UserError
from weft_rl.score import ScoreConfig, run, score_file

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {task: FIXTURES / f"{task}_128.jsonl" for task in ("sudoku", "countdown")}
SUDOKU = {
    "question": "Solve the following Sudoku puzzle: 4320004330100004\n",
    "generation": "<answer>\n4321124334122134\n</answer>",
    "ground_truth": "4321124334122134",
}
COUNTDOWN = {"generation": r"\boxed{2*4-3}", "ground_truth": [[2, 3, 4], 5]}


@pytest.mark.parametrize(
    ("task", "correct", "total", "score"),
    [("sudoku", 240, 2048, 11.72), ("countdown", 53, 256, 20.70)],
)
def test_strict_equals_the_published_verdicts(task, correct, total, score):
    result = score_file(FILES[task], task, "d1")
    rows = [json.loads(line) for line in FILES[task].read_text().splitlines()]
    published = [row.get("d1_correct_cells", row.get("d1_correct")) for row in rows]
    assert [row["correct"] for row in result["per_record"]] == published
    assert [row["line"] for row in result["per_record"]] == list(range(1, 257))
    assert (result["correct"], result["total"], result["score"]) == (correct, total, score)
    assert (result["n"], result["disagreements"], result["broken"]) == (256, [], [])


@pytest.mark.parametrize(
    ("task", "line", "here", "d1", "reason"),
    [
        ("sudoku", 185, 1, 0, "'132132132132132132'; d1 reads '<answer>132132132132132132'"),
        ("countdown", 194, 1, 0, "96 - 48  + 26"),
    ],
)
def test_each_disagreement_is_listed(task, line, here, d1, reason):
    result = score_file(FILES[task], task)
    (row,) = result["disagreements"]
    assert (row["line"], row["correct"], row["d1"]) == (line, here, d1)
    assert reason in row["reason"]
    # whatever is not listed agrees
    strict = score_file(FILES[task], task, "d1")
    differing = [
        ours["line"]
        for ours, theirs in zip(result["per_record"], strict["per_record"], strict=True)
        if ours["correct"] != theirs["correct"]
    ]
    assert differing == [line]


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


def test_one_json_object_is_printed(tmp_path, capsys):
    path = str(write(tmp_path, COUNTDOWN | {"generation": "\ud800"}, COUNTDOWN))
    assert run(ScoreConfig("countdown", path, per_record=False)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        **{"task": "countdown", "strict": None, "n": 2, "unit": "records"},
        **{"correct": 1, "total": 2, "score": 50.0, "disagreements": [], "broken": []},
    }
    run(ScoreConfig("countdown", path))
    assert len(json.loads(capsys.readouterr().out)["per_record"]) == 2


def test_unknown_options_values():
    with pytest.raises(UserError, match="task=chess: must be one of sudoku, countdown"):
        ScoreConfig("chess", "x")
    with pytest.raises(UserError, match="strict=d2: must be d1 or null"):
        ScoreConfig("sudoku", "x", "d2")


def test_no_torch_on_the_way():
    modules = "weft_rl.score, weft_rl.data.records, weft_rl.data.sudoku, weft_rl.data.countdown"
    program = f"import sys, {modules}, weft_rl.data.baselines; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
