"""The generators of Sudoku and Countdown: solvable, split by content, stateless."""

from collections import Counter
from itertools import combinations, permutations, product

import pytest

from weft_rl.data import countdown, sudoku
from weft_rl.data.sudoku import held_out_orbits, latin_squares, orbit
from weft_rl.data.tasks import load_records
from weft_rl.rewards.arithmetic import NotAnExpression, evaluate
from weft_rl.rewards.sudoku_grid import completions, is_solved, solved_grids

SPLITS = pytest.mark.parametrize("split", ["train", "test"])


@SPLITS
@pytest.mark.parametrize("task", [sudoku, countdown])
def test_a_longer_list_starts_with_the_shorter(task, split):
    assert task.generate(split, 50, 1)[:10] == task.generate(split, 10, 1)
    assert task.generate(split, 10, 1) != task.generate(split, 10, 2)


def test_latin_squares_hold_the_grids():
    # 576 and 288 are the known counts for order 4
    assert len(latin_squares()) == len(set(latin_squares())) == 576
    assert [square for square in latin_squares() if is_solved(square)] == list(solved_grids())


def test_twelve_orbits_of_twenty_four():
    sizes = Counter(map(orbit, solved_grids()))
    assert [*sizes.values()] == [24] * 12
    assert all(name.startswith("1234") and orbit(name) == name for name in sizes)
    assert orbit("4321124334122134") == "1234431221433421"  # 4->1, 3->2, 2->3, 1->4
    assert held_out_orbits() == {"1234341221434321", "1234342121434312", "1234432121433412"}
    assert sum(map(sudoku.is_held_out, solved_grids())) == 72


@pytest.mark.parametrize("blanks", [4, 8])
def test_no_test_solution_nor_relabeling_in_train(blanks):
    parts = (sudoku.generate("train", 2000, 0, blanks), sudoku.generate("test", 500, 0, blanks))
    train, test = ({orbit(record["solution"]) for record in part} for part in parts)
    assert (len(train), len(test), train & test) == (9, 3, set())


@SPLITS
def test_sudokus_have_their_solution_only(split):
    records = [row for blanks in (4, 8, 12) for row in sudoku.generate(split, 60, 3, blanks)]
    for record in records:
        assert completions(record["puzzle"]) == [record["solution"]]
    assert {record["puzzle"].count("0") for record in records} == {4, 8, 12}
    assert len({record["puzzle"] for record in records}) == 180


@pytest.mark.slow
def test_every_sudoku_of_one_number_of_blanks_is_dealt_once():
    dealt = sudoku.generate("test", 130_560, 0, 4)
    assert len({fields["puzzle"] for fields in dealt}) == 130_560
    # naive: the sets of four cells that leave one solution, for one of the 72 grids
    grid = min(held_out_orbits())
    sets = combinations(range(16), 4)
    puzzles = ["".join("0" if i in cells else grid[i] for i in range(16)) for cells in sets]
    expected = {puzzle for puzzle in puzzles if len(completions(puzzle)) == 1}
    assert {fields["puzzle"] for fields in dealt if fields["solution"] == grid} == expected
    assert 0 < len(expected) < len(puzzles) == 1820
    with pytest.raises(ValueError, match="only 130560 test puzzles"):
        sudoku.generate("test", 130_561, 0, 4)


def test_training_deals_sudokus_again_when_all_are_dealt():
    puzzles = [record["puzzle"] for record in sudoku.generate("train", 2 * 3456, 0, 1)]
    assert puzzles[:3456] == puzzles[3456:]
    assert len(set(puzzles)) == 3456  # 216 grids x 16 cells


def test_solver_on_hand_worked_puzzles():
    assert completions("4320004330100004") == ["4321124334122134", "4321214334121234"]
    assert completions("4320124330100004") == ["4321124334122134"]
    assert len(completions("0" * 16)) == 288
    assert completions("11" + "0" * 14) == []
    # rows 1 and 3 hold 12 and 21 or the reverse, and so do rows 2 and 4
    assert len(completions("0034340000434300")) == 4


def by_expressions(numbers):
    """Positive integer values of all written-out expressions: the naive way."""
    values = set()
    for a, b, c in permutations(numbers):
        for one, two in product("+-*/", repeat=2):
            for text in (f"({a}{one}{b}){two}{c}", f"{a}{one}({b}{two}{c})"):
                try:
                    value = evaluate(text)[0]
                except NotAnExpression:  # division by zero
                    continue
                if value > 0 and value.denominator == 1:
                    values.add(int(value))
    return tuple(sorted(values))


def test_reachable():
    for numbers in ((2, 3, 4), (1, 1, 1), (1, 3, 3), (5, 5, 9), (8, 8, 3), (30, 93, 100)):
        assert countdown.reachable(*numbers) == by_expressions(numbers)
    # 1+1+1, 1*1+1, (1+1)*1, 1+1-1, 1*1*1 and their like
    assert countdown.reachable(1, 1, 1) == (1, 2, 3)
    assert 12 in countdown.reachable(1, 2, 6)  # 6 / (1/2): a fraction on the way


@pytest.mark.slow
@SPLITS
@pytest.mark.parametrize(("number", "target"), [(9, 99), (99, 100)])
def test_countdowns_are_solvable_and_within_limits(split, number, target):
    for fields in countdown.generate(split, 100, 5, number, target):
        assert fields["target"] in by_expressions(fields["numbers"])
        assert all(1 <= value <= number for value in fields["numbers"])
        assert 1 <= fields["target"] <= target


def content(fields):
    return tuple(sorted(fields["numbers"])), fields["target"]


def test_no_countdown_is_in_both_splits():
    rows = [fields for seed in range(5) for fields in countdown.generate("train", 1000, seed)]
    train, test = {*map(content, rows)}, [*map(content, countdown.generate("test", 300, 0))]
    assert len(set(test)) == 300
    assert not train & set(test)
    for numbers, target in test:
        assert all(countdown.is_held_out(list(order), target) for order in permutations(numbers))
    # 1728 training problems exist with these limits: most have been seen
    assert len(train) > 1000


def test_limits_that_leave_too_few_countdowns():
    # 416 test problems exist with numbers to 9 and targets to 99
    assert len(countdown.generate("test", 416, 0)) == 416
    with pytest.raises(ValueError, match="too few test problems for another one after 416"):
        countdown.generate("test", 417, 0)


@pytest.mark.slow
def test_published_countdowns_are_never_trained_on():
    published = [record.fields for record in load_records("countdown", "published")]
    assert all(countdown.is_held_out(row["numbers"][::-1], row["target"]) for row in published)
    # most of them would be in the training split by their hash alone
    drawn = countdown.generate("train", 3000, 0, max_number=100, max_target=100)
    assert not set(map(content, published)) & set(map(content, drawn))
