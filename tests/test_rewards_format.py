"""Format rewards by hand, without the traps of d1's, and the table of all rewards."""

from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards import format
from weft_rl.rewards.registry import REWARDS, training

GOOD = "<reasoning>\nTwo and two\nare four.\n</reasoning>\n<answer>\n4\n</answer>"
ONE_LINE = "<reasoning>r</reasoning><answer>4</answer>"


def test_hand_worked():
    for text, tags, soft, strict in [
        (GOOD, 1, 1, 1),  # several lines, which d1's patterns once refused
        (f"{GOOD}\n", 1, 1, 1),
        (f"{GOOD}<|eot_id|>x" + "y" * 5000, 1, 1, 1),  # unsaid text costs nothing
        (f"{GOOD}<|eot_id|>{GOOD}", 1, 1, 1),  # nor do tags that were never said
        *((ONE_LINE, 1, 1, 0), (f"Well. {GOOD}", 1, 0, 0), (f"{GOOD} Done.", 1, 0, 0)),
        (GOOD.replace("4", " "), 1, 0, 0),  # nothing in it
        *((GOOD + GOOD, 0, 0, 0), (GOOD.replace("<reasoning>", ""), 0.75, 0, 0)),
        ("<answer>4</answer>", 0.5, 0, 0),
        ("</answer><answer></reasoning><reasoning>", 0.25, 0, 0),
        ("<answer>4</answer><reasoning>r</reasoning>", 0.5, 0, 0),
        ("<reasoning><answer>4</answer></reasoning>", 0.5, 0, 0),
        *(("<reasoning>r</reasoning><answer>4", 0.75, 0, 0), ("", 0, 0, 0), ("four", 0, 0, 0)),
    ]:
        assert (format.tags(text), format.soft(text), format.strict(text)) == (tags, soft, strict)


def test_length_costs_nothing():
    # d1 takes .001 off per character behind the last tag, and pays .001 when there is none
    assert format.tags(GOOD + "!" * 5000) == format.tags(GOOD) == 1


def test_integer():
    for answer, value in [
        *(("5", 1), ("-5", 1), ("1,000", 1), ("12.0", 1), (" 7\n", 1), (r"\boxed{7}", 1)),
        *(("3.5", 0), ("5 eggs", 0), ("٣", 0), ("²", 0), ("1,00", 0), ("", 0), ("x", 0)),
    ]:
        assert format.integer(f"<answer>{answer}</answer>") == value


def test_boxed_answer():
    for text, value in [
        *((r"<answer>\boxed{5}</answer>", 1), ("<answer>5</answer>", 0.5)),
        (r"\boxed{5}", 0),  # d1 pays a quarter to every text
        *((r"\boxed{5}<answer>5</answer>", 0.5), (r"<answer>\boxed{5</answer>", 1)),
        *((r"<answer>\boxed{ }</answer>", 0.5), ("<answer> </answer>", 0)),
        (r"<|eot_id|><answer>\boxed{5}</answer>", 0),
    ]:
        assert format.boxed_answer(text) == value


PIECES = st.lists(st.sampled_from([*format.TAGS, "\n", "4", "<|eot_id|>", "\ud800", "<answer"]))


@settings(deadline=None)
@given(text=PIECES.map("".join))
def test_each_form_demands_more_than_the_one_before_it(text):
    assert 0 <= format.strict(text) <= format.soft(text) <= format.tags(text) <= 1


def test_every_task_trains_on_and_reports_its_rewards():
    assert {task: list(rewards.evaluation) for task, rewards in REWARDS.items()} == {
        "sudoku": ["cell_accuracy", "exact", "valid"],
        "countdown": ["exact"],
        "gsm8k": ["exact"],
        "math500": ["exact"],
    }
    for task in REWARDS:
        (term,) = training(task).values()
        assert term.weight == 1


def test_terms_of_d1():
    # gsm8k: 2 for being right, and .5 for each of four rewards of form; math500: 2 and 1
    for task, most in (("sudoku", 1), ("countdown", 1), ("gsm8k", 4), ("math500", 3)):
        assert sum(term.weight for term in training(task, "d1").values()) == most
    # a right and well-formed answer gets every term
    text = "<reasoning>\nr\n</reasoning>\n<answer>\n{}\n</answer>"
    right = (("gsm8k", "5", "#### 5"), ("math500", r"\boxed{x^2}", "x^2"))
    for task, answer, key in right:
        terms = training(task, "d1").values()
        assert [term.reward(text.format(answer), answer=key) for term in terms] == [1] * len(terms)
