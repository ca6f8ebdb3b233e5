"""The Sudoku generator: orbits, split, one solution each, and statelessness."""

from collections import Counter
from itertools import combinations

import pytest

from weft_rl.data.sudoku import generate, held_out_orbits, is_held_out, latin_squares, orbit
from weft_rl.rewards.sudoku_grid import completions, is_solved, solved_grids


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
    assert sum(map(is_held_out, solved_grids())) == 72


@pytest.mark.parametrize("blanks", [4, 8])
def test_no_test_solution_nor_relabeling_in_train(blanks):
    parts = generate("train", 2000, 0, blanks), generate("test", 500, 0, blanks)
    train, test = ({orbit(record["solution"]) for record in part} for part in parts)
    assert (len(train), len(test), train & test) == (9, 3, set())


@pytest.mark.parametrize("split", ["train", "test"])
def test_puzzles_have_their_solution_only(split):
    records = [row for blanks in (4, 8, 12) for row in generate(split, 60, 3, blanks)]
    for record in records:
        assert completions(record["puzzle"]) == [record["solution"]]
    assert {record["puzzle"].count("0") for record in records} == {4, 8, 12}
    assert len({record["puzzle"] for record in records}) == 180


@pytest.mark.slow
def test_every_puzzle_of_one_number_of_blanks_is_dealt_once():
    dealt = generate("test", 130_560, 0, 4)
    assert len({fields["puzzle"] for fields in dealt}) == 130_560
    # naive: the sets of four cells that leave one solution, for one of the 72 grids
    grid = min(held_out_orbits())
    sets = combinations(range(16), 4)
    puzzles = ["".join("0" if i in cells else grid[i] for i in range(16)) for cells in sets]
    expected = {puzzle for puzzle in puzzles if len(completions(puzzle)) == 1}
    assert {fields["puzzle"] for fields in dealt if fields["solution"] == grid} == expected
    assert 0 < len(expected) < len(puzzles) == 1820
    with pytest.raises(ValueError, match="only 130560 test puzzles"):
        generate("test", 130_561, 0, 4)


def test_a_longer_list_starts_with_the_shorter():
    for split in ("train", "test"):
        assert generate(split, 50, 1, 6)[:10] == generate(split, 10, 1, 6)
        assert generate(split, 10, 1) == generate(split, 10, 1)
        assert generate(split, 10, 1) != generate(split, 10, 2)


def test_training_deals_again_when_all_are_dealt():
    puzzles = [record["puzzle"] for record in generate("train", 2 * 3456, 0, 1)]
    assert puzzles[:3456] == puzzles[3456:]
    assert len(set(puzzles)) == 3456  # 216 grids x 16 cells


def test_solver_on_hand_worked_puzzles():
    assert completions("4320004330100004") == ["4321124334122134", "4321214334121234"]
    assert completions("4320124330100004") == ["4321124334122134"]
    assert len(completions("0" * 16)) == 288
    assert completions("11" + "0" * 14) == []
    # rows 1 and 3 hold 12 and 21 or the reverse, and so do rows 2 and 4
    assert len(completions("0034340000434300")) == 4
