"""Where an answer is found: tags, boxes, end tokens."""

import pytest

from rewards.extract import LONGEST_ANSWER, answer_text, before_end, boxed, tagged_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no tag", None),
        ("</answer>", None),
        ("a<answer>b</answer>c", "b"),
        ("<answer>first</answer><answer>last</answer>", "last"),
        ("<answer>\ntwo\nlines</answer>", "\ntwo\nlines"),
        ("<answer>cut short", "cut short"),
        # a closed tag wins over a later open one, which may be talk about the format
        ("<answer>a</answer> write <answer>", "a"),
        ("<answer>a</answer> stray </answer>", "a"),
        ("<answer>outer <answer>inner</answer>", "inner"),
        ("</answer><answer>b", "b"),
    ],
)
def test_last_tag(text, expected):
    assert tagged_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no box", None),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}+1} tail}", r"\frac{1}{2}+1"),
        (r"\boxed{", None),
        (r"\boxed{{1}", None),
        (r"\boxed{}", ""),
    ],
)
def test_last_box(text, expected):
    assert boxed(text) == expected


def test_text_after_the_first_end_token_was_never_said():
    assert before_end("a<|eot_id|>b<|endoftext|>c") == "a"
    assert before_end("a<|endoftext|>b<|eot_id|>c") == "a"
    assert answer_text("<answer>1</answer><|eot_id|><answer>2</answer>") == "1"
    assert answer_text("<answer>12<|endoftext|>34</answer>") == "12"
    assert answer_text("<|eot_id|><answer>2</answer>") is None


def test_box_inside_the_tag_then_tag_then_box():
    assert answer_text(r"<answer>so \boxed{7}</answer>") == "7"
    assert answer_text(r"\boxed{6}<answer>7</answer>") == "7"
    assert answer_text(r"so \boxed{6}") == "6"


@pytest.mark.parametrize("text", ["", "7", "<answer> \n</answer>", r"<answer>\boxed{ }</answer>"])
def test_nothing_is_no_answer(text):
    assert answer_text(text) is None


def test_a_long_answer_is_cut_and_a_long_box_is_none():
    assert answer_text("<answer>" + "1" * 10_000) == "1" * LONGEST_ANSWER
    assert boxed(r"\boxed{" + "1" * LONGEST_ANSWER + "}") is None
