"""The cold start's schemas: one trace from each, and what is said about records of none."""

import json

import pytest

from weft_rl.data.schemas import Trace, trace_of

S1K = {"question": "q", "thinking_trajectories": ["think", "more"], "attempt": "a", "cot": None}
S1K_1_1 = {
    "question": "q",
    "deepseek_thinking_trajectory": "think",
    "deepseek_attempt": "a",
    "gemini_thinking_trajectory": "other",
    "gemini_attempt": "other",
    "deepseek_grade": "Yes",
}


def chat(*turns, **more):
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


ASKED = ("user", "q")
MIXTURE = chat(ASKED, ("assistant", "<think>\nthink\n</think>\n\na\n"), num_tokens=9, source="math")


@pytest.mark.parametrize(("row", "more"), [(S1K, {}), (S1K_1_1, {}), (MIXTURE, {"num_tokens": 9})])
def test_the_reasoning_schemas_give_one_trace(row, more):
    assert trace_of(row, "f:1") == Trace("q", "think", "a", "f:1", **more)


def test_a_chat_keeps_its_turns_and_its_text():
    row = chat(
        ("system", "be brief"), ASKED, ("assistant", "x"), ("user", "y "), ("assistant", "\nz ")
    )
    history = (("system", "be brief"), ASKED, ("assistant", "x"))
    assert trace_of(row, "f:1") == Trace("y ", None, "z", "f:1", history)
    # without num_tokens it is a chat, and its thoughts are text like any other
    text = MIXTURE["messages"][1]["content"]
    assert trace_of({"messages": MIXTURE["messages"]}, "").answer == text.strip()


@pytest.mark.parametrize(("count", "kept"), [(9, 9), (9.0, 9), (None, None), ("x", None)])
def test_a_chat_whose_tokens_were_counted_is_a_chat(count, kept):
    row = chat(ASKED, ("assistant", "a <think>b</think>"), num_tokens=count, source="x")
    assert trace_of(row, "f:1") == Trace("q", None, "a <think>b</think>", "f:1", num_tokens=kept)


def test_empty_columns_are_of_another_schema():
    """Data sets that were put together: a row has the columns of all."""
    empty = dict.fromkeys([*S1K, *S1K_1_1, *MIXTURE])
    for row in (S1K, S1K_1_1, MIXTURE, chat(ASKED, ("assistant", "a"))):
        assert trace_of(empty | row, "") == trace_of(row, "")


@pytest.mark.parametrize("spell", [json.dumps, repr])
def test_lists_that_are_spelled_as_text(spell):
    row = chat(ASKED, ("assistant", "it's a"))
    assert trace_of({"messages": spell(row["messages"])}, "") == trace_of(row, "")
    row = S1K | {"thinking_trajectories": spell(S1K["thinking_trajectories"])}
    assert trace_of(row, "") == trace_of(S1K, "")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"text": "t", "url": "u"},
            r"columns \[text,url\] fit no schema \(s1K: attempt, question, ",
        ),
        ({}, r"columns \[\] fit no schema"),
        ({"question": "q", "attempt": "a"}, r"columns \[question,attempt\] fit no schema"),
        (S1K | {"question": None}, "question must be a text that is not empty, got 'null'"),
        (S1K | {"attempt": " \n"}, "attempt must be a text that is not empty"),
        (S1K | {"attempt": 5}, "attempt must be a text that is not empty, got '5'"),
        (S1K | {"thinking_trajectories": []}, "thinking_trajectories .* not empty"),
        (S1K | {"thinking_trajectories": "text"}, "thinking_trajectories .* not empty"),
        (S1K | {"thinking_trajectories": [""]}, "thinking_trajectories .* not empty"),
        (S1K | {"attempt": "\ud83d"}, "attempt holds half of a surrogate pair"),
        (S1K_1_1 | {"deepseek_attempt": ""}, "deepseek_attempt must be a text that is not empty"),
        (MIXTURE | {"num_tokens": None}, "num_tokens must be a whole number, got null"),
        (MIXTURE | {"num_tokens": True}, "num_tokens must be a whole number, got true"),
        (chat(ASKED, ("assistant", "<think>t"), num_tokens=1), "must be <think>...</think> and"),
        (chat(ASKED, ("assistant", "<think>t</think> "), num_tokens=1), "answer after </think>"),
        (chat(ASKED, ("assistant", "<think> </think>a"), num_tokens=1), "between <think> and"),
        (chat(ASKED), r"end with user and assistant, got \[user\]: there is no answer to train on"),
        (chat(), r"end with user and assistant, got \[\]"),
        (chat(("assistant", "a")), r"end with user and assistant, got \[assistant\]"),
        (chat(ASKED, ("assistant", "a"), ASKED), r"got \[assistant,user\]: there is no answer"),
        (chat(ASKED, ("assistant", "")), "content of a message of the assistant must be a text"),
        (chat(ASKED, ("assistant", None)), "content of a message of the assistant must be a text"),
        (chat(ASKED, ("assistant", [{"text": "a"}])), "content of a message of the assistant must"),
        (chat(ASKED, ("tool", "a")), "role must be one of system, user, assistant, got tool"),
        ({"messages": "text"}, "messages must be a list, got text"),
        ({"messages": None}, "messages must be a list, got null"),
        ({"messages": ["text"]}, "a message must have role and content, got text"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(row, said):
    with pytest.raises(ValueError, match=said):
        trace_of(row, "f:1")
