"""Where an answer is found: tags, boxes, end tokens."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards.extract import (
    END_TOKENS,
    LONGEST_ANSWER,
    answer_text,
    before_end,
    boxed,
    tagged_answer,
)


def test_last_tag():
    for text, expected in [
        *(("no tag", None), ("</answer>", None), ("a<answer>b</answer>c", "b")),
        ("<answer>first</answer><answer>last</answer>", "last"),
        *(("<answer>\ntwo\nlines</answer>", "\ntwo\nlines"), ("<answer>cut short", "cut short")),
        # a closed tag wins over a later open one, which may be talk about the format
        *(("<answer>a</answer> write <answer>", "a"), ("<answer>a</answer> stray </answer>", "a")),
        *(("<answer>outer <answer>inner</answer>", "inner"), ("</answer><answer>b", "b")),
    ]:
        assert tagged_answer(text) == expected


def test_last_box():
    for text, expected in [
        *(("no box", None), ("boxed", None), (r"\boxed{1} then \boxed{2}", "2")),
        *((r"\boxed{\frac{1}{2}+1} tail}", r"\frac{1}{2}+1"), (r"\boxed{", None)),
        *((r"\boxed{}", None), (r"\boxed{ }", None), (r"\boxed{1} \boxed{}", "1")),
        # never closed: cut short, or its brace mistyped
        *((r"\boxed{{1}", "{1}"), (r"\boxed{18>", "18"), ("\\boxed{5\nmore", "5")),
        (r"\boxed{360\text{ hours} hours.", r"360\text{ hours} hours"),
        *(("boxed{4}", "4"), (r"\fbox{4}", "4"), (r"\boxed 4.", "4")),
        (r"\boxed{" + "1" * LONGEST_ANSWER + "}", None),
    ]:
        assert boxed(text) == expected


def test_answer():
    for text, answer in [
        *(("", None), ("7", None), ("<answer> \n</answer>", None)),
        (r"<answer>\boxed{ }</answer>", None),
        *((r"<answer>so \boxed{7}</answer>", "7"), (r"\boxed{6}<answer>7</answer>", "7")),
        *((r"so \boxed{6}", "6"), ("<answer>\n\\boxed{5}\n</answer><|eot_id|>", "5")),
        (r"<answer>\boxed{5} or \boxed{6}</answer>", "6"),
        # mistyped
        *(("<answer>\n\\boxed{}101\n</answer>", "\n 101\n"), ("<answer> </answer>\\boxed{5}", "5")),
        *((r"\boxed{3} plums." + "\n</<answer>", "3"), ("<answer>boxed{4}</answer>", "4")),
        (r"<answer>\boxed{48 + 29 + 16>", "48 + 29 + 16"),
        ("<answer>the boxed answer: 4</answer>", "the boxed answer: 4"),
        # what follows an end token does not count
        *(("<answer>12<|endoftext|>34</answer>", "12"), ("<|eot_id|><answer>2</answer>", None)),
        (r"\boxed{4}<|eot_id|><answer>\boxed{5}</answer>", "4"),
        (r"\boxed{4} and \boxed{5<|eot_id|>}", "5"),
        ("<answer>" + "1" * 10_000, "1" * LONGEST_ANSWER),
    ]:
        assert answer_text(text) == answer


def test_every_end_token_ends_an_answer():
    for token in END_TOKENS:
        for text in ("<answer>{}</answer>", r"<answer>\boxed{{{}}}</answer>", r"so \boxed{{{}}}"):
            assert answer_text(f"{text.format(5)}{token}{text.format(6)}") == "5"


# The definitions, which look at every place.
def naive_before_end(text):
    return re.split("|".join(map(re.escape, END_TOKENS)), text)[0]


def naive_tagged(text):
    closed = [
        text[at + 8 :].split("</answer>")[0]
        for at in range(len(text))
        if text.startswith("<answer>", at) and "</answer>" in text[at:]
    ]
    opened = text.split("<answer>")[1:]
    return closed[-1] if closed else opened[-1] if opened else None


PIECES = [
    *("<answer>", "</answer>", r"\boxed{", r"\boxed{12}", "}", "{", "boxed{4}", r"\fbox{5}", "7"),
    *(r"\boxed 6", " ", "\n", "|", "<", "<|e", "</reasoning>", "a" * 101, "box", *END_TOKENS),
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_any_text_against_the_definitions(text):
    assert before_end(text) == naive_before_end(text)
    assert tagged_answer(text) == naive_tagged(text)
    kept = naive_before_end(text)
    inside = naive_tagged(kept)
    bare = re.sub(r"\\?(?:boxed|fbox)\s*\{\s*\}?", " ", inside or "")
    candidates = [inside and boxed(inside), bare, boxed(kept)]
    assert answer_text(text) == next((c for c in candidates if c and not c.isspace()), None)
