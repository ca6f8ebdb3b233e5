"""The Countdown generator: solvable, split by content, stateless."""

from itertools import permutations, product

import pytest

from weft_rl.data.countdown import generate, is_held_out, reachable
from weft_rl.data.tasks import load_records
from weft_rl.rewards.arithmetic import NotAnExpression, evaluate


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
        assert reachable(*numbers) == by_expressions(numbers)
    # 1+1+1, 1*1+1, (1+1)*1, 1+1-1, 1*1*1 and their like
    assert reachable(1, 1, 1) == (1, 2, 3)
    # 8 / (3 - 8/3) needs a fraction on the way, with four numbers; here 6 / (1/2) = 12
    assert 12 in reachable(1, 2, 6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_problems_are_solvable_and_within_limits(split):
    for number, target in ((9, 99), (99, 100)):
        for fields in generate(split, 100, 5, number, target):
            assert fields["target"] in by_expressions(fields["numbers"])
            assert all(1 <= value <= number for value in fields["numbers"])
            assert 1 <= fields["target"] <= target


def content(fields):
    return tuple(sorted(fields["numbers"])), fields["target"]


def test_no_problem_is_in_both_splits():
    train = {content(fields) for seed in range(5) for fields in generate("train", 1000, seed)}
    test = [content(fields) for fields in generate("test", 300, 0)]
    assert len(set(test)) == 300
    assert not train & set(test)
    assert all(is_held_out(list(numbers), target) for numbers, target in test)
    # 1728 training problems exist with these limits: most have been seen
    assert len(train) > 1000


def test_split_does_not_depend_on_the_order_of_numbers():
    for target in range(1, 50):
        assert len({is_held_out(list(order), target) for order in permutations((2, 3, 7))}) == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_longer_list_starts_with_the_shorter(split):
    assert generate(split, 30, 1)[:10] == generate(split, 10, 1)
    one, two = (list(map(content, generate(split, 10, seed))) for seed in (1, 2))
    assert one != two


def test_limits_that_leave_too_few():
    # 416 test problems exist with numbers to 9 and targets to 99
    assert len(generate("test", 416, 0)) == 416
    with pytest.raises(ValueError, match="too few test problems for another one after 416"):
        generate("test", 417, 0)


@pytest.mark.slow
def test_published_problems_are_never_trained_on():
    published = [record.fields for record in load_records("countdown", "published")]
    assert all(is_held_out(row["numbers"][::-1], row["target"]) for row in published)
    # most of them would be in the training split by their hash alone
    drawn = generate("train", 3000, 0, max_number=100, max_target=100)
    assert not set(map(content, published)) & set(map(content, drawn))
