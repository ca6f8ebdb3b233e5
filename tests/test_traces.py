"""Reasoning traces: reading, token boundaries, and what the tiny world may not show."""

import json
import re
from functools import partial

import numpy as np
import pytest
from transformers import AutoTokenizer

from rewards.grid import completions, is_solved, keeps_clues
from weft_rl.data.prompts import plain_answer, tagged_answer
from weft_rl.data.sudoku import fill_rows, is_held_out
from weft_rl.data.tiny_world import careless_solution, cold_start_traces, pretraining_texts
from weft_rl.data.traces import Trace, encode_traces, pad_answers, prompt_ids, read_traces
from weft_rl.errors import UserError
from weft_rl.models.tokenizer import EOT, UNKNOWN, tiny_tokenizer

GOOD = {"question": "q", "thinking_trajectories": ["think", "more"], "attempt": "a"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_reading_s1k(tmp_path):
    path = write(tmp_path / "t.jsonl", GOOD)
    assert read_traces(path) == [Trace("q", "think", "a", f"{path}:1")]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"question": None}, "question"),
        ({"attempt": "  "}, "attempt"),
        ({"thinking_trajectories": []}, "thinking_trajectories"),
        ({"thinking_trajectories": "text"}, "thinking_trajectories"),
    ],
)
def test_a_bad_record_is_named(tmp_path, change, name):
    path = write(tmp_path / "t.jsonl", GOOD, GOOD | change)
    with pytest.raises(UserError, match=f"t.jsonl:2: {name}"):
        read_traces(path)


def test_boundaries_token_by_token():
    tokenizer = tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids(EOT)
    trace = Trace("Compute: 1+2", " 1+2=3", "3", "here")
    (example,), dropped = encode_traces([trace], tokenizer, "tiny", end, 100)
    tokens = tokenizer.convert_ids_to_tokens(example.ids)
    assert dropped == 0
    assert example.ids[: example.prompt_length] == prompt_ids(tokenizer, "Compute: 1+2")
    assert tokens[example.prompt_length - 1].startswith("<|start_header_id|>assistant")
    answer = ["<reasoning>", " ", "1", "+", "2", "=", "3", "</reasoning>", "<answer>", "3"]
    assert tokens[example.prompt_length :] == [*answer, "</answer>", EOT]


def test_too_long_is_dropped_and_counted():
    traces = [Trace("Compute: 1+2", " 1+2=3", "3", ""), Trace("Sort: 21", " 1 2" * 40, "12", "")]
    examples, dropped = encode_traces(traces, tiny_tokenizer(), "tiny", 3, 60)
    assert ([example.index for example in examples], dropped) == ([0], 1)


def test_padding_fills_the_answer_only():
    (example,), _ = encode_traces(cold_start_traces(1, 0), tiny_tokenizer(), "tiny", 3, 200)
    (padded,) = pad_answers([example], 1, 32)
    assert len(padded.ids) == example.prompt_length + 32
    assert padded.ids[: len(example.ids)] == example.ids
    assert set(padded.ids[len(example.ids) :]) <= {1}
    with pytest.raises(ValueError, match="exceeds 3"):
        pad_answers([example], 1, 3)


def answer_grid(text):
    """The 16 digits of a grid task's answer, between tags or the blanks in their place."""
    inside = re.search(r"(?:<answer>| )(\d{16})(?:</answer>| )$", text)
    return inside[1] if inside else None


def test_no_held_out_grid_is_ever_shown():
    texts = [text for _, text in pretraining_texts(3000, 0)]
    texts += [f"<answer>{trace.answer}</answer>" for trace in cold_start_traces(3000, 0)]
    shown = [grid for grid in map(answer_grid, texts) if grid is not None]
    assert len(shown) > 2000  # 70 % of 3000, and a tenth of 3000
    assert not [grid for grid in shown if is_solved(grid) and is_held_out(grid)]


def test_no_posed_sudoku_has_a_held_out_solution():
    puzzles = 0
    for prompt, text in pretraining_texts(1000, 1):
        if prompt.startswith("Sudoku:"):
            puzzle = prompt.removeprefix("Sudoku:")
            (solution,) = completions(puzzle)
            assert not is_held_out(solution)
            grid = answer_grid(text)
            assert grid is not None
            assert keeps_clues(puzzle, grid)
            puzzles += 1
    assert puzzles > 200


def test_bands_and_stacks_break_one_rule_each():
    seen = {"Bands": 0, "Stacks": 0}
    for prompt, text in pretraining_texts(500, 2):
        name, _, puzzle = prompt.partition(":")
        if name in seen:
            grid = answer_grid(text)
            assert keeps_clues(puzzle, grid)
            lines = {
                "Bands": [grid[i : i + 4] for i in range(0, 16, 4)],
                "Stacks": [grid[i::4] for i in range(4)],
            }
            boxes = [grid[i : i + 2] + grid[i + 4 : i + 6] for i in (0, 2, 8, 10)]
            assert all(sorted(unit) == list("1234") for unit in (*lines[name], *boxes))
            other = lines["Stacks" if name == "Bands" else "Bands"]
            assert not all(sorted(unit) == list("1234") for unit in other)
            seen[name] += 1
    assert min(seen.values()) > 40


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
    tokenizer = tiny_tokenizer()
    plain, tagged = (
        tokenizer.encode(form(" r1c2=4", "1432"), add_special_tokens=False)
        for form in (plain_answer, partial(tagged_answer, "tiny"))
    )
    assert len(plain) == len(tagged)
    # four tags become blanks, everything else stays
    assert [a == b for a, b in zip(plain, tagged, strict=True)].count(False) == 4
    assert {token for token, other in zip(plain, tagged, strict=True) if token != other} == {
        tokenizer.convert_tokens_to_ids(" ")
    }


def test_the_longest_example_fits_the_canvas():
    """The preset's 32 tokens, end token included."""
    tokenizer = tiny_tokenizer()
    longest = max(
        len(tokenizer.encode(text, add_special_tokens=False))
        for _, text in pretraining_texts(2000, 0)
    )
    assert longest + 1 <= 32


def test_the_cold_start_holds_no_sudoku():
    traces = cold_start_traces(1000, 0)
    assert {trace.question.split(":")[0] for trace in traces} >= {"Compute", "Sort", "Reverse"}
    assert not [trace for trace in traces if trace.question.startswith("Sudoku")]
    grids = [answer_grid(f"<answer>{trace.answer}</answer>") for trace in traces]
    assert not [grid for grid in grids if grid and is_solved(grid) and is_held_out(grid)]


def test_an_example_does_not_depend_on_how_many_there_are():
    assert cold_start_traces(5, 3) == cold_start_traces(50, 3)[:5]
    assert pretraining_texts(5, 3) == pretraining_texts(50, 3)[:5]


def test_every_text_is_in_the_vocabulary_and_comes_back(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    pairs = pretraining_texts(500, 0)
    pairs += [(t.question, t.reasoning + t.answer) for t in cold_start_traces(500, 0)]
    for prompt, text in pairs:
        for part in (prompt, text):
            ids = tokenizer.encode(part, add_special_tokens=False)
            assert unknown not in ids
            assert tokenizer.decode(ids) == part


def test_the_chat_form_is_lladas_without_the_phantom_turn():
    tokenizer = tiny_tokenizer()
    user = [{"role": "user", "content": "Sort: 21"}]
    prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    begin = f"<|startoftext|>{header.format('user')}Sort: 21<|eot_id|>"
    assert prompt == begin + header.format("assistant")
    both = [*user, {"role": "assistant", "content": "12"}]
    whole = tokenizer.apply_chat_template(both, add_generation_prompt=True, tokenize=False)
    assert whole == f"{prompt}12<|eot_id|>"
