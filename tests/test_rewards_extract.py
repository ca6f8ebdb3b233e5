"""Where an answer is found: tags, boxes, end tokens."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards import extract
from weft_rl.rewards.extract import (
    END_TOKENS,
    LONGEST_ANSWER,
    answer_text,
    before_end,
    boxed,
    tagged_answer,
)


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
        *((r"\boxed{", None), (r"\boxed{}", None), (r"\boxed{ }", None), ("boxed", None)),
        # never closed: cut short, or its brace mistyped
        *((r"\boxed{{1}", "{1}"), (r"\boxed{18>", "18"), ("\\boxed{5\nmore", "5")),
        (r"\boxed{360\text{ hours} hours.", r"360\text{ hours} hours"),
        *((r"\boxed{1} \boxed{}", "1"), ("boxed{4}", "4"), (r"\fbox{4}", "4"), (r"\boxed 4.", "4")),
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


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *(("<answer>\n\\boxed{}101\n</answer>", "101"), ("<answer> </answer>\\boxed{5}", "5")),
        *(
            ("\\boxed{3} plums.\n</<answer>", "3"),
            ("<answer>\\boxed{48 + 29 + 16>", "48 + 29 + 16"),
        ),
        *(("<answer>boxed{4}</answer>", "4"), ("<answer>the boxed answer: 4</answer>", None)),
    ],
)
def test_boxes_and_tags_that_were_mistyped(text, answer):
    assert (answer_text(text) or "").strip() == (answer or "the boxed answer: 4")


@pytest.mark.parametrize("token", extract.END_TOKENS)
def test_every_end_token_ends_an_answer(token):
    assert answer_text(f"<answer>5</answer>{token}<answer>6</answer>") == "5"
    assert answer_text(f"<answer>\\boxed{{5}}</answer>{token}<answer>\\boxed{{6}}</answer>") == "5"
    assert answer_text(f"so \\boxed{{5}}{token}\\boxed{{6}}") == "5"


@pytest.mark.parametrize("text", ["", "7", "<answer> \n</answer>", r"<answer>\boxed{ }</answer>"])
def test_nothing_is_no_answer(text):
    assert answer_text(text) is None


def test_a_long_answer_is_cut_and_a_long_box_is_none():
    assert answer_text("<answer>" + "1" * 10_000) == "1" * LONGEST_ANSWER
    assert boxed(r"\boxed{" + "1" * LONGEST_ANSWER + "}") is None


def plain_before_end(text):
    return re.split("|".join(map(re.escape, extract.END_TOKENS)), text)[0]


def plain_tagged(text):
    closed = [
        text[at + 8 :].split("</answer>")[0]
        for at in range(len(text))
        if text.startswith("<answer>", at) and "</answer>" in text[at:]
    ]
    opened = text.split("<answer>")[1:]
    return closed[-1] if closed else opened[-1] if opened else None


PIECES = ["<answer>", "</answer>", "\\boxed{", "\\boxed{12}", "}", "{", "7", " ", "\n", "|", "<"]
PIECES += [
    "</s>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|e",
    "</reasoning>",
    "a" * 101,
    "\\boxed{3}\n</answer>",
]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_the_short_ways_give_what_the_long_way_gives(text):
    """Against definitions that look at every place, and the long way against the short one."""
    assert before_end(text) == plain_before_end(text)
    assert tagged_answer(text) == plain_tagged(text)
    assert answer_text(text) == extract._answer_text(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>\n\\boxed{5}\n</answer><|eot_id|>", "5"),
        ("so \\boxed{5}<|eot_id|>", "5"),
        ("<answer>\\boxed{5}<|eot_id|>", "5"),
        # not the short way: said after the end; closed before; two boxes; ended within
        ("\\boxed{4}<|eot_id|><answer>\\boxed{5}</answer>", "4"),
        ("<answer>4</answer><answer>\\boxed{5}", "4"),
        ("<answer>\\boxed{5} or \\boxed{6}</answer>", "6"),
        ("\\boxed{4} and \\boxed{5<|eot_id|>}", "5"),
    ],
)
def test_what_the_short_ways_read(text, answer):
    assert answer_text(text) == answer


# what the ways to an answer look at, in any order
PIECES = [
    *(
        "<answer>",
        "</answer>",
        "\\boxed{",
        "}",
        "{",
        "boxed{4}",
        "\\fbox{5}",
        "\\boxed 6",
        " ",
        "\n",
    ),
    *("42", "3 + 4", "x", "\\frac{1}{2}", "box", "|", "<", *END_TOKENS),
]


def found_slowly(text):
    """The answer by the definition: cut at the first end token, then the tag, then the box."""
    text = text[: min((at for token in END_TOKENS if (at := text.find(token)) >= 0), default=None)]
    inside = tagged_answer(text)
    answers = [] if inside is None else [last_box(inside), bare(inside)]
    answers = [answer for answer in [*answers, last_box(text)] if answer and not answer.isspace()]
    return answers[0][:LONGEST_ANSWER] if answers else None


def bare(inside):
    return re.sub(r"\\?(?:boxed|fbox)\s*\{\s*\}?", " ", inside)


def last_box(text):
    # a blank box behind the text keeps `boxed` from seeing that the last one is a plain one
    return boxed(text + "\n\\fbox{}")


@settings(deadline=None, max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_short_ways_find_the_same_answer(text):
    assert answer_text(text) == found_slowly(text)


@pytest.mark.parametrize("task", ["countdown", "gsm8k", "math500", "sudoku"])
def test_short_ways_find_the_same_answer_in_stored_generations(task):
    path = Path(__file__).parent / "fixtures" / f"{task}_128.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["generation"]
        assert answer_text(text) == found_slowly(text)
