"""The cold start's schemas: one trace from each, and errors for records of none."""

import json

import pytest

from weft_rl.data.trace_schemas import Trace, trace_of, turns_of

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


def answered(content, **more):
    return chat(ASKED, ("assistant", content), **more)


MIXTURE = answered("<think>\nthink\n</think>\n\na\n", num_tokens=9, source="math")


def test_the_reasoning_schemas_give_one_trace():
    mixture = {"num_tokens": 9, "think": "rewrite"}
    for row, more in ((S1K, {}), (S1K_1_1, {}), (MIXTURE, mixture)):
        assert trace_of(row, "f:1") == Trace("q", "think", "a", "f:1", **more)


def test_a_chat_keeps_its_turns_and_its_text():
    row = chat(
        ("system", "be brief"), ASKED, ("assistant", "x"), ("user", "y "), ("assistant", "\nz ")
    )
    history = (("system", "be brief"), ASKED, ("assistant", "x"))
    assert trace_of(row, "f:1") == Trace("y ", None, "z", "f:1", history)


THOUGHT = "<think>\nthink\n</think>\n\na"


def test_thoughts_are_rewritten_or_kept_whatever_other_columns_there_are():
    for more in ({}, {"num_tokens": 9}, {"source": "x"}, {"num_tokens": None}):
        row, count = {"messages": MIXTURE["messages"], **more}, more.get("num_tokens")
        expected = Trace("q", "think", "a", "f:1", num_tokens=count, think="rewrite")
        assert trace_of(row, "f:1") == expected
        kept = trace_of(row, "f:1", "keep")
        assert kept.think == "keep"
        assert f"<think>{kept.reasoning}</think>{kept.answer}" == THOUGHT


THINK = pytest.mark.parametrize("think", ["rewrite", "keep"])


@THINK
def test_an_answer_that_does_not_begin_with_a_thought_is_text(think):
    for text in ("a", "a <think>b</think> c", "a</think>b</think>c"):
        for count, kept in ((9, 9), (9.0, 9), (None, None), ("x", None)):
            trace = trace_of(answered(text, num_tokens=count), "f:1", think)
            assert trace == Trace("q", None, text, "f:1", num_tokens=kept)


def test_half_a_thought_is_kept_as_text_only():
    for text in ("<think>t", "<think>t</think>", "t</think>"):
        assert trace_of(answered(text), "", "keep").answer == text
        with pytest.raises(ValueError, match="</think>"):
            trace_of(answered(text), "")


@THINK
def test_a_thought_that_the_template_opened_is_one(think):
    """DeepSeek-R1's template ends a prompt with <think>: the answer has only </think>."""
    texts = (THOUGHT, THOUGHT.removeprefix("<think>\n"))
    whole, ended = (trace_of(answered(text), "f:1", think) for text in texts)
    assert ended.reasoning.strip() == whole.reasoning.strip() == "think"
    assert (ended.answer, ended.think) == (whole.answer, think)
    with pytest.raises(ValueError, match="</think>"):
        trace_of(answered("</think>a"), "f:1")
    assert trace_of(answered("</think>a"), "f:1", "keep").answer == "a"


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def test_the_forms_of_a_chat():
    told = [{"from": "human", "value": "q"}, {"from": "gpt", "value": THOUGHT}]
    asked, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    unused = {"tool_calls": None, "from": None, "thinking": None}
    for row in [
        *({"conversations": told}, {"messages": told}, chat(("human", "q"), ("gpt", THOUGHT))),
        {"conversations": answered(THOUGHT)["messages"], "messages": None},
        chat(("user", parts("q")), ("assistant", parts("<think>\nthink\n", "</think>\n\na"))),
        {"messages": [asked | unused, answer | {"reasoning_content": "think"}]},
        {"messages": [asked | unused, answer | {"thinking": "think", "tool_calls": []}]},
    ]:
        assert trace_of(row, "f:1") == Trace("q", "think", "a", "f:1", think="rewrite")


def test_earlier_turns_are_rewritten_where_they_are_trained_on():
    row = chat(("system", "s"), ASKED, ("assistant", THOUGHT), ("user", "r"), ("assistant", " b "))
    first, last = turns_of(trace_of(row, "f:1"), "rewrite")
    system = (("system", "s"),)
    assert first == Trace("q", "think", "a", "f:1, message 3", system, think="rewrite")
    assert last == Trace("r", None, "b", "f:1", (*system, ASKED, ("assistant", THOUGHT)))
    greeted = Trace("q", None, "a", "f:1", (("assistant", "hello"),))
    assert [*turns_of(greeted, "rewrite")] == [greeted]
    broken = chat(ASKED, ("assistant", "<think>t"), ("user", "r"), ("assistant", "b"))
    with pytest.raises(ValueError, match="message 2"):
        [*turns_of(trace_of(broken, "f:1"), "rewrite")]


def test_empty_columns_are_of_another_schema():
    """Data sets that were put together: a row has the columns of all."""
    empty = dict.fromkeys([*S1K, *S1K_1_1, *MIXTURE])
    for row in (S1K, S1K_1_1, MIXTURE, answered("a")):
        assert trace_of(empty | row, "") == trace_of(row, "")


@pytest.mark.parametrize("spell", [json.dumps, repr])
def test_lists_that_are_spelled_as_text(spell):
    row = answered("it's a")
    assert trace_of({"messages": spell(row["messages"])}, "") == trace_of(row, "")
    row = S1K | {"thinking_trajectories": spell(S1K["thinking_trajectories"])}
    assert trace_of(row, "") == trace_of(S1K, "")


def turn(content, **more):
    return {"messages": [{"role": "assistant", "content": content, **more}]}


THOUGHTS, UNTYPED = "thinking_trajectories", [{"type": "text"}]
ERRORS = {
    r"\[text,url\] .*s1K: attempt, question, ": [{"text": "t", "url": "u"}],
    r"columns \[\]": [{}],
    r"\[question,attempt\]": [{"question": "q", "attempt": "a"}],
    "question .*null": [S1K | {"question": None}],
    "attempt": [S1K | {"attempt": bad} for bad in (" \n", 5, "\ud83d")],
    "thinking_traj": [S1K | {THOUGHTS: bad} for bad in ([], "text", [""])],
    "deepseek_attempt": [S1K_1_1 | {"deepseek_attempt": ""}],
    "think>": map(answered, ("<think>t", "<think>t</think> ", "<think> </think>a")),
    r"messages .*\[user\]": [chat(ASKED)],
    r"messages .*\[\]": [chat()],
    r"\[assistant\]": [chat(("assistant", "a"))],
    r"\[assistant,user\]": [chat(ASKED, ("assistant", "a"), ASKED)],
    "the assistant": map(answered, ("", None, [{"text": "a"}], parts(""))),
    "role .*(tool|function)": [chat(ASKED, (role, "a")) for role in ("tool", "function")],
    "text, got image": [chat(("user", [{"type": "image"}]), ("assistant", "a"))],
    "text, got q": [chat(("user", ["q"]), ("assistant", "a"))],
    "the user": [chat(("user", UNTYPED), ("assistant", "a"))],
    "conversations": [{"conversations": [{"from": "human", "value": "q"}]}, {"conversations": 5}],
    "tool": [turn(None, tool_calls=[{}]), turn("a", function_call={"a": 1})],
    "messages? .*(text|null)": [{"messages": bad} for bad in ("text", None, ["text"])],
}


@pytest.mark.parametrize("key", ERRORS)
def test_errors_name_the_problem(key):
    for row in ERRORS[key]:
        with pytest.raises(ValueError, match=key):
            trace_of(row, "f:1")
