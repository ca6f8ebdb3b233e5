"""Sudoku rewards, on a puzzle worked by hand and on every puzzle by enumeration."""

from itertools import permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards.sudoku import answer_digits, cell_accuracy, exact, flags
from weft_rl.rewards.sudoku_grid import (
    completions,
    empty_cells,
    is_solved,
    keeps_clues,
    solved_grids,
)

# 43|20    43|21
# 00|43    12|43    eight empty cells
# 30|10 -> 34|12
# 00|04    21|34
PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"
# rows 1 and 3 hold 12 and 21 or the reverse, and so do rows 2 and 4: 2 x 2 solutions
MANY = "0034340000434300"


def tagged(answer):
    return f"<reasoning>\nlook\n</reasoning>\n<answer>\n{answer}\n</answer><|eot_id|>"


def test_hand_worked():
    for answer, cells, whole in [
        *((SOLUTION, 1, 1), (PUZZLE, 0, 0)),
        ("1" * 16, 3 / 8, 0),  # the solution's empty cells read 1 1 2 4 2 2 1 3
        ("4321 1243\n3412|2134", 1, 1),  # only digits are read
        (f"```\n{SOLUTION}\n```", 1, 1),
        (f"{SOLUTION}1", 1, 0),  # 17 digits: cut for the cells, no whole answer
        (SOLUTION[:15], 1, 0),  # the missing 16th cell is a clue
        (SOLUTION[:12], 5 / 8, 0),  # the three empty cells of row 4 are missing
        ("1" + SOLUTION[1:], 1, 0),  # a changed clue costs the whole, not the cells
        (SOLUTION[:-1] + "٤", 1, 0),  # an Arabic 4 is no digit: 15 are left
        ("", 0, 0),
    ]:
        assert cell_accuracy(tagged(answer), PUZZLE, SOLUTION) == cells
        assert exact(tagged(answer), PUZZLE, SOLUTION) == whole


def test_what_counts_as_a_cell_a_digit_and_an_answer():
    assert "".join(SOLUTION[i] for i in empty_cells(PUZZLE)) == "11242213"
    assert answer_digits("<answer>1٤2²3５4</answer>") == "1234"  # noqa: RUF001
    # the tag is needed, but not its end
    assert cell_accuracy(SOLUTION, PUZZLE, SOLUTION) == exact(SOLUTION, PUZZLE, SOLUTION) == 0
    assert exact(f"<answer>{SOLUTION}", PUZZLE, SOLUTION) == 1


def test_the_size_of_a_grid_is_not_one_of_its_cells():
    for sentence in [
        *("The solved 4x4 Sudoku puzzle is:", "4 x 4 grid:", "4X4:", "4\u00d74"),
        *(r"$4\times4$ grid", "4-by-4 grid", "The 4 by 4 grid with 2x2 boxes is"),
    ]:
        right, wrong = (tagged(f"{sentence}\n{grid}") for grid in (SOLUTION, PUZZLE))
        assert exact(right, PUZZLE, SOLUTION) == cell_accuracy(right, PUZZLE, SOLUTION) == 1
        assert cell_accuracy(wrong, PUZZLE, SOLUTION) == 0


def test_without_a_solution_the_best_of_all_counts():
    assert exact(tagged(SOLUTION), PUZZLE) == 1
    assert exact(tagged(SOLUTION[::-1]), PUZZLE) == 0  # a solved grid of another puzzle
    solutions = completions(MANY)
    assert len(solutions) == 4
    for solution in solutions:
        assert cell_accuracy(tagged(solution), MANY) == exact(tagged(solution), MANY) == 1
    first, other = solutions[:2]
    assert cell_accuracy(tagged(other), MANY, first) < 1
    assert exact(tagged(other), MANY, first) == 0
    assert cell_accuracy(tagged(SOLUTION), PUZZLE) == 1
    assert cell_accuracy(tagged("1" * 16), PUZZLE) == 3 / 8
    for puzzle in (SOLUTION, "1100000000000000", "432", "", "x" * 20):  # no empty cell or solution
        assert cell_accuracy(tagged(SOLUTION), puzzle) == 0


def test_flags_say_what_the_cells_do_not_show():
    first, other = completions(MANY)[:2]
    for answer, flag in ((first, []), (other, ["other solution"])):
        assert flags(tagged(answer), MANY, first) == flag
    for answer, flag in (("2" + SOLUTION[1:], "clue"), (SOLUTION + "1", "length")):
        assert flags(tagged(answer), PUZZLE, SOLUTION) == [flag]
    assert flags("no tag", PUZZLE, SOLUTION) == ["no answer"]


def test_all_grids_by_enumeration_of_rows():
    # the naive way: every three of the 24 rows below 1234; renaming digits gives the other grids
    rows, grids = ["".join(row) for row in permutations("1234")], list(solved_grids())
    naive = ["1234" + "".join(three) for three in product(rows, repeat=3)]
    naive = [grid for grid in naive if is_solved(grid)]
    assert [grid for grid in grids if grid.startswith("1234")] == naive
    assert (len(naive), len(set(grids)), len(grids)) == (12, 288, 288)
    assert all(map(is_solved, grids))
    assert grids == sorted(grids)


def test_rules_of_a_grid():
    assert is_solved(SOLUTION)
    assert not is_solved("1234123412341234")  # columns
    assert not is_solved("1234234134124123")  # rows and columns hold, boxes do not
    assert not is_solved(SOLUTION[:15])
    assert keeps_clues(PUZZLE, SOLUTION)
    assert not keeps_clues(PUZZLE, "1" + SOLUTION[1:])
    assert not keeps_clues(PUZZLE, SOLUTION[:15])


@settings(deadline=None)
@given(
    grid=st.sampled_from(solved_grids()),
    clues=st.lists(st.booleans(), min_size=16, max_size=16),
    answer=st.text("01234 ", max_size=20),
    names=st.permutations("1234"),
    key=st.booleans(),
)
def test_renaming_digits_changes_nothing(grid, clues, answer, names, key):
    renamed = str.maketrans("1234", "".join(names))
    puzzle = "".join(digit if kept else "0" for digit, kept in zip(grid, clues, strict=True))
    here, there = (tagged(answer), tagged(answer.translate(renamed)))
    solution = (grid, grid.translate(renamed)) if key else (None, None)
    for reward in (cell_accuracy, exact):
        before = reward(here, puzzle, solution[0])
        assert before == reward(there, puzzle.translate(renamed), solution[1])
