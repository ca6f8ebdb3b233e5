"""Reasoning traces: token boundaries, cutting, and what the tiny model's texts may not hold."""

import re
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from bpe import llada_bpe
from tokenizers import normalizers
from transformers import AutoTokenizer

from weft_rl.data.prompts import chat_prompt, tagged_answer
from weft_rl.data.sft_examples import Example, Examples, encode_traces
from weft_rl.data.sudoku import fill_rows, is_held_out
from weft_rl.data.text import TextEncoder
from weft_rl.data.toy import (
    careless_solution,
    cold_start_traces,
    plain_answer,
    pretraining_texts,
)
from weft_rl.data.trace_schemas import Trace, trace_of, turns_of, with_thought
from weft_rl.errors import UserError
from weft_rl.families.llada import CHAT_TEMPLATE
from weft_rl.models.toy import EOT, MASK, UNKNOWN, tiny_tokenizer
from weft_rl.rewards.sudoku_grid import completions, is_solved, keeps_clues


def prompt_ids(tokenizer, user, history=()):
    return TextEncoder(tokenizer).chats([chat_prompt(user, history)])[0]


def test_boundaries_token_by_token():
    tokenizer = tiny_tokenizer()
    (example,), dropped, *_ = encoded(Trace("Compute: 1+2", " 1+2=3", "3", "here"), 100)
    tokens = tokenizer.convert_ids_to_tokens(example.ids)
    assert dropped == 0
    assert example.ids[: example.prompt_length] == prompt_ids(tokenizer, "Compute: 1+2")
    assert tokens[example.prompt_length - 1].startswith("<|start_header_id|>assistant")
    answer = ["<reasoning>", *" 1+2=3", "</reasoning>", "<answer>", "3", "</answer>", EOT]
    assert tokens[example.prompt_length :] == answer


def encoded(trace, max_length, truncation="drop", tokenizer=None, **options):
    tokenizer = tokenizer or tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids(EOT)
    return encode_traces([trace], tokenizer, "tiny", end, max_length, truncation, **options)


def text_of(example):
    return tiny_tokenizer().decode(example.ids[example.prompt_length :])


# Its answer is 8 words of 2 tokens, 4 tags, 2 digits and the end: 23
LONG = Trace("Sort: 21", " 1 2 3 4 5 6 7 8", "12", "file:3")
END = tiny_tokenizer().convert_tokens_to_ids(EOT)


def test_the_trace_loses_its_middle_and_keeps_answer_and_end():
    whole = encoded(LONG, 100, "cut_trace")
    length = len(whole.examples[0].ids)
    # each word is a blank and a digit: five tokens less are three words less, and all may go
    for less, cut, kept in ((0, 0, " 1 2 3 4 5 6 7 8"), (5, 1, " 1 2 3 7 8"), (16, 1, "")):
        done = encoded(LONG, length - less, "cut_trace")
        (example,) = done.examples
        assert (done.dropped, done.cut) == (0, cut)
        assert text_of(example) == f"<reasoning>{kept}</reasoning><answer>12</answer>{EOT}"
        assert example.ids[: example.prompt_length] == prompt_ids(tiny_tokenizer(), LONG.question)
    assert encoded(LONG, length - 17, "cut_trace")[:] == ([], 1, 0, length, 0)


@pytest.mark.parametrize("text", ["1" * 90, " 1 2 " * 9 + " ", "  1"])
def test_what_is_cut_is_the_middle_of_any_text(text):
    trace = Trace("Sort: 21", text, "12", "")
    length = len(encoded(trace, 500, "drop").examples[0].ids)
    for less in range(1, len(text) + 1):
        (example,), dropped, cut, *_ = encoded(trace, length - less, "cut_trace")
        assert (dropped, cut) == (0, 1)
        assert length - less - 22 < len(example.ids) <= length - less
        kept = text_of(example).removeprefix("<reasoning>").split("</reasoning>")[0]
        splits = range(len(kept) + 1)
        assert any(text.startswith(kept[:i]) and text.endswith(kept[i:]) for i in splits)


def test_right_cuts_the_end_token_too_and_never_leaves_a_prompt_alone():
    whole = encoded(LONG, 100, "right").examples[0]
    for limit in range(1, len(whole.ids) + 1):
        examples, dropped, cut, lost, _ = encoded(LONG, limit, "right")
        if limit <= whole.prompt_length:
            assert (examples, dropped, cut) == ([], 1, 0)
        else:
            assert examples[0].ids == whole.ids[:limit]
            assert (dropped, cut, lost) == (0, int(limit < len(whole.ids)), len(whole.ids) - limit)


def test_a_chat_has_no_trace_to_cut():
    chat = Trace("Sort: 21", None, "1 2 " * 20, "")
    length = len(encoded(chat, 200).examples[0].ids)
    assert encoded(chat, 40, "cut_trace")[:] == ([], 1, 0, length, 1)
    assert (encoded(chat, 40, "right").cut, encoded(chat, 40).without_reasoning) == (1, 0)


FORMS = {"rewrite": "<reasoning>{}</reasoning><answer>12</answer>", "keep": "<think> {}</think>12"}


@pytest.mark.parametrize("think", FORMS)
def test_the_thoughts_of_a_chat_are_cut_in_either_form(think):
    history, tokenizer = (("user", "Sort: 31"), ("assistant", "1 3")), llada_bpe()
    text = "<think> 1 2 3 4 5 6 7 8</think>12"
    chat = with_thought(Trace("Sort: 21", None, text, "", history), think)
    (whole,), *_ = encoded(chat, 300, "cut_trace", tokenizer)
    (cut,), *counts = encoded(chat, len(whole.ids) - 3, "cut_trace", tokenizer)
    answers = [tokenizer.decode(one.ids[one.prompt_length : -1]) for one in (whole, cut)]
    assert answers[0] == FORMS[think].format("1 2 3 4 5 6 7 8")
    kept = re.fullmatch(re.escape(FORMS[think]).replace(r"\{\}", "(.*)"), answers[1])[1].split()
    assert 3 < len(kept) < 8
    assert [kept[0], kept[-1]] == ["1", "8"]
    assert whole.ids[: whole.prompt_length] == cut.ids[: cut.prompt_length]
    assert counts == [0, 1, len(whole.ids) - len(cut.ids), 0]


def test_a_template_that_leaves_out_earlier_thoughts_and_opens_the_next():
    """As Qwen3's and DeepSeek-R1's: the prompt is a prefix, and every thought has both its ends."""
    tokenizer, content = llada_bpe(), "{{ message['content'] | trim }}"
    assert content in CHAT_TEMPLATE
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        content, "{{ message['content'].split('</think>')[-1] | trim }}"
    ).replace("{% endif %}", "<think>\n{% endif %}")
    thoughts = [("assistant", "<think>x</think>1"), ("user", "2"), ("assistant", "y</think>2")]
    row = [{"role": role, "content": text} for role, text in (("user", "1"), *thoughts)]
    for think in ("keep", "rewrite"):
        for turn in turns_of(trace_of({"messages": row}, "f:1", think), think):
            (example,) = encoded(turn, 400, tokenizer=tokenizer).examples
            prompt = prompt_ids(tokenizer, turn.question, turn.history)
            assert example.ids[: example.prompt_length] == prompt
            text = tokenizer.decode(example.ids)
            assert text.count("<think>") == text.count("</think>") == (think == "keep")
            assert ("<reasoning>x" in text or "<reasoning>y" in text) == (think == "rewrite")


def test_a_special_token_that_a_record_spells_is_text():
    tokenizer = llada_bpe()
    special = {*tokenizer.all_special_ids}
    for part, token in product(("question", "reasoning", "answer", "history"), (MASK, EOT)):
        texts = ("1 2", f"1 {token} 2")
        values = [(("user", text),) if part == "history" else text for text in texts]
        traces = [replace(LONG, **{part: value}) for value in values]
        plain, spelled = (encoded(t, 400, tokenizer=tokenizer).examples[0].ids for t in traces)
        assert [id for id in spelled if id in special] == [id for id in plain if id in special]
        assert texts[1] in tokenizer.decode(spelled)


def test_a_record_that_the_template_refuses_is_rejected_by_name():
    tokenizer, errors = tiny_tokenizer(), []
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template
    )
    traces = [LONG, replace(LONG, history=(("system", "1"),)), LONG]
    examples, *_ = encode_traces(traces, tokenizer, "tiny", END, 200, "drop", errors.append)
    # the third keeps its place, which seeds its masks
    assert [example.index for example in examples] == [0, 2]
    (error,) = errors
    assert str(error).startswith("file:3: ")
    with pytest.raises(UserError, match="file:3: "):
        encode_traces(traces, tokenizer, "tiny", END, 200)


def test_examples_in_arrays_are_those_that_were_put_in():
    some = [Example(7, [1, 2, 3], 1), Example(9, [2**31 - 1, 0], 0), Example(2**40, [5], 0)]
    kept = Examples(some)
    assert [*kept] == some == kept
    assert (kept[-1], kept[:2], kept.lengths()) == (some[-1], some[:2], [3, 2, 1])
    with pytest.raises(IndexError):
        kept[3]


def test_batches_of_traces_are_encoded_as_each_alone():
    traces = cold_start_traces(600, 0)  # more than a batch
    examples, *_ = encode_traces(traces, tiny_tokenizer(), "tiny", END, 200)
    assert [example.index for example in examples] == [*range(600)]
    for i in (0, 511, 512, 599):
        (alone,), *_ = encoded(traces[i], 200)
        assert examples[i] == replace(alone, index=i)


def test_an_answer_without_tokens_is_refused():
    tokenizer = tiny_tokenizer()
    # as a tokenizer that strips what it does not know
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("x", "")
    with pytest.raises(UserError, match="file:3: the tokenizer makes no tokens of its answer"):
        encode_traces([Trace("1", None, "x", "file:3")], tokenizer, "tiny", END, 200)
    with pytest.raises(ValueError, match="example 4: "):
        Example(4, [1, 2, 3], 3)


def answer_grid(text):
    """The 16 digits of a grid task's answer, between tags or the blanks in their place."""
    inside = re.search(r"(?:<answer>| )(\d{16})(?:</answer>| )$", text)
    return inside[1] if inside else None


@pytest.mark.slow
def test_no_held_out_grid_is_ever_shown():
    pairs, traces = pretraining_texts(1500, 0), cold_start_traces(1500, 0)
    assert {trace.question.split(":")[0] for trace in traces} >= {"Compute", "Sort", "Reverse"}
    assert not [trace for trace in traces if trace.question.startswith("Sudoku")]
    texts = [text for _, text in pairs] + [f"<answer>{trace.answer}</answer>" for trace in traces]
    shown = [grid for grid in map(answer_grid, texts) if grid is not None]
    assert len(shown) > 1000  # 70 % of 1500, and a tenth of 1500
    assert not [grid for grid in shown if is_solved(grid) and is_held_out(grid)]
    posed = [pair for pair in pairs if pair[0].startswith("Sudoku:")]
    assert len(posed) > 300
    for prompt, text in posed:
        puzzle = prompt.removeprefix("Sudoku:")
        (solution,) = completions(puzzle)
        assert not is_held_out(solution)
        assert keeps_clues(puzzle, answer_grid(text))


def test_bands_and_stacks_break_one_rule_each():
    def hold(units):
        return all(sorted(unit) == list("1234") for unit in units)

    posed = [(*prompt.split(":"), text) for prompt, text in pretraining_texts(500, 2)]
    for wanted in ("Bands", "Stacks"):
        grids = [(puzzle, answer_grid(text)) for name, puzzle, text in posed if name == wanted]
        assert len(grids) > 40
        for puzzle, grid in grids:
            assert keeps_clues(puzzle, grid)
            assert hold(grid[i : i + 2] + grid[i + 4 : i + 6] for i in (0, 2, 8, 10))
            assert hold(grid[i : i + 4] for i in range(0, 16, 4)) == (wanted == "Bands")
            assert hold(grid[i::4] for i in range(4)) == (wanted == "Stacks")


def test_the_teacher_heeds_rows_only():
    puzzle = "1200" + "1340" + "3420" + "0013"  # the rows lack 34, 2, 1 and 24
    rng = np.random.default_rng(0)
    assert fill_rows(puzzle) == "1234" + "1342" + "3421" + "2413"
    filled = [careless_solution(puzzle, rng) for _ in range(400)]
    assert set(filled) == {
        f"12{one}13423421{two}13" for one in ("34", "43") for two in ("24", "42")
    }
    # four in five ascending, and a quarter of the rest: 85 %, standard error 1.8
    assert 0.79 < np.mean([grid == fill_rows(puzzle) for grid in filled]) < 0.91


def test_plain_and_tagged_answers_have_the_same_places():
    tokenizer, forms = tiny_tokenizer(), (plain_answer, partial(tagged_answer, "tiny"))
    texts = [form(" r1c2=4", "1432") for form in forms]
    plain, tagged = (tokenizer.encode(text, add_special_tokens=False) for text in texts)
    # four tags become blanks, everything else stays
    changed = [a for a, b in zip(plain, tagged, strict=True) if a != b]
    assert changed == [tokenizer.convert_tokens_to_ids(" ")] * 4


@pytest.mark.parametrize("generate", [cold_start_traces, pretraining_texts])
def test_an_example_does_not_depend_on_how_many_there_are(generate):
    assert generate(5, 3) == generate(50, 3)[:5]


def test_every_text_is_in_the_vocabulary_and_comes_back(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    pairs = pretraining_texts(1000, 0)
    pairs += [(t.question, t.reasoning + t.answer) for t in cold_start_traces(300, 0)]
    for i, part in enumerate(part for pair in pairs for part in pair):
        ids = tokenizer.encode(part, add_special_tokens=False)
        assert unknown not in ids
        assert i % 2 == 0 or len(ids) < 32  # an answer and its end token fit the preset's 32 tokens
        assert tokenizer.decode(ids) == part
