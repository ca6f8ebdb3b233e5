"""The completions in a report and the verdicts on their cells."""

import pytest
from run_folders import SOLUTION, completion, write_lines

from weft_rl.report.samples import sample_groups


#   4 3 2 .      4 3 2 1
#   . . 4 3      1 2 4 3
#   3 . 1 .      3 4 1 2
#   . . . 4      2 1 3 4
@pytest.mark.parametrize(
    ("answer", "kinds", "verdict"),
    [
        (SOLUTION, "cccrrrcccrcrrrrc", "8 of 8 empty cells right"),
        ("4322 1143 3412 2134", "cccwrwcccrcrrrrc", "6 of 8 empty cells right"),
        ("1321124334122134", "xccrrrcccrcrrrrc", "8 of 8 empty cells right; changes a clue"),
        (
            "432112",
            "cccrrrcccwcwwwwc",
            "3 of 8 empty cells right; 6 digits instead of 16",
        ),
        (
            SOLUTION + "1",
            "cccrrrcccrcrrrrc",
            "8 of 8 empty cells right; 17 digits instead of 16",
        ),
        (None, "cccwwwcccwcwwwwc", "no answer"),
    ],
)
def test_each_cell_is_judged(tmp_path, answer, kinds, verdict):
    text = "I do not know" if answer is None else f"<answer>{answer}</answer>"
    write_lines(tmp_path / "completions" / "eval-rl.jsonl", [completion("rl", text)])
    [[sample]] = [group.samples for group in sample_groups(tmp_path, ["rl"])]
    letters = {"clue": "c", "changed": "x", "right": "r", "wrong": "w"}
    assert "".join(letters[cell.kind] for row in sample.grid for cell in row) == kinds
    assert [len(row) for row in sample.grid] == [4, 4, 4, 4]
    if answer == "432112":
        texts = ["".join(cell.text for cell in row) for row in sample.grid]
        assert texts == ["4321", "12" + "43", "3·1·", "···4"]
    assert sample.verdict == verdict


def test_without_a_solution_any_solved_grid_is_right(tmp_path):
    # rows 3 and 4 are open and have several completions, of which the answer is one
    fields = {"puzzle": "1234432100000000", "solution": None}
    answer = completion("rl", "<answer>1234432121433412</answer>", fields=fields)
    write_lines(tmp_path / "completions" / "eval-rl.jsonl", [answer])
    [[sample]] = [group.samples for group in sample_groups(tmp_path, [])]
    assert sample.verdict == "8 of 8 empty cells right"


def test_first_held_out_and_last_trained(tmp_path):
    rows = [completion("rl", "", id=f"p-{i}") for i in range(20)]
    for name in ("eval-weft", "eval-rl", "rl", "eval-zeta"):
        write_lines(tmp_path / "completions" / f"{name}.jsonl", rows)
    groups = sample_groups(tmp_path, ["weft", "rl"])
    expected = [("weft", True), ("rl", True), ("zeta", True), ("rl", False)]
    assert [(group.stage, group.is_held_out) for group in groups] == expected
    assert [sample.name for sample in groups[0].samples] == [f"p-{i}" for i in range(6)]
    assert [sample.name for sample in groups[3].samples] == [f"p-{i}" for i in range(14, 20)]
