"""The small world: its sums, its tokenizer, its size, and the pipeline through all its stages."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from weft_rl.config.load import load_run_config
from weft_rl.config.schema import BaseConfig
from weft_rl.data.prompts import task_prompt
from weft_rl.data.sft_examples import encode_traces, prompt_ids
from weft_rl.data.small_world import small_texts, small_traces, word_problem
from weft_rl.models.loading import fresh_model
from weft_rl.models.small import small_config, small_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.plan.command import make_plans
from weft_rl.plan.config import PlanConfig
from weft_rl.rewards.sudoku_grid import is_solved
from weft_rl.runs.folder import newest_checkpoint

SUM = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def test_every_sum_is_right_and_leads_to_the_answer():
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    signs = Counter()
    for trace in small_traces(400, 3):
        have = int(re.search(r"has (\d+) ", trace.question)[1])
        sums = SUM.findall(trace.reasoning)
        assert 2 <= len(sums) <= 4
        for left, sign, right, result in sums:
            assert int(left) == have
            have = apply[sign](have, int(right))
            assert int(result) == have
            # shared out to the last one
            assert sign != "/" or have * int(right) == int(left)
            signs[sign] += 1
        assert trace.answer == str(have)
        assert have > 0
        # every number of the story is used, and no number comes from elsewhere
        told = set(re.findall(r"\d+", trace.question))
        words = {"twice": "2", "three times": "3", "four times": "4"}
        told |= {number for word, number in words.items() if word in trace.question}
        assert {right for _, _, right, _ in sums} <= told
    assert min(signs[sign] for sign in "+-*/") > 50


def test_a_record_has_s1ks_columns():
    row = word_problem(np.random.default_rng(0))
    columns = {"solution", "question", "cot_type", "source_type", "metadata", "attempt"}
    assert set(row) == columns | {"thinking_trajectories"}
    assert isinstance(row["thinking_trajectories"], list)


def test_an_example_depends_on_its_number_alone():
    assert small_texts(5, 1) == small_texts(40, 1)[:5]
    assert small_traces(5, 1) == small_traces(40, 1)[:5]
    assert small_texts(5, 1) != small_texts(5, 2)


def _digits_at(tokenizer, ids):
    """Places of single digits that stand in runs of sixteen: those of grids."""
    digit = [token in "01234" for token in tokenizer.convert_ids_to_tokens(ids)]
    runs = [i for i in range(len(ids) - 15) if all(digit[i : i + 16])]
    return [i for i in runs if i == 0 or not digit[i - 1]]


def test_all_cells_are_equally_far_from_what_they_copy(tokenizer):
    far, plain = set(), 0
    for prompt, text in small_texts(300, 0):
        ids = prompt_ids(tokenizer, prompt)
        grids = _digits_at(tokenizer, ids)
        if "4x4" not in prompt:
            assert not grids
            continue
        told = len(ids) + np.array(_digits_at(tokenizer, tokenizer.encode(text)))
        # the grid and the filled grid in the reasoning, and the answer; tags take room before them
        assert len(told) == 3
        tagged = "<answer>" in text
        plain += not tagged
        far.add((tagged, *np.diff([grids[-1], *told])))
    assert len(far) == 2
    assert plain > 50


def test_other_grids_keep_the_rule_they_are_given():
    cells = np.arange(16).reshape(4, 4)
    units = {
        "row": [*cells],
        "column": [*cells.T],
        "box": [cells[i : i + 2, j : j + 2].ravel() for i in (0, 2) for j in (0, 2)],
    }
    kept = Counter()
    for prompt, text in small_texts(400, 0):
        rule = re.search(r"so that each (\w+) and each (?:2x2 )?(\w+) holds", prompt)
        if not rule:
            continue
        clues, answer = prompt[-17:-1], re.findall(r"[1-4]{16}", text)[-1]
        assert all(clue in ("0", digit) for clue, digit in zip(clues, answer, strict=True))
        assert clues.count("0") == 8
        assert not is_solved(answer)
        for name in rule.groups():
            for unit in units[name]:
                assert sorted(answer[i] for i in unit) == list("1234")
        kept[rule.groups()] += 1
    assert set(kept) == {("row", "column"), ("row", "box"), ("column", "box")}
    assert min(kept.values()) > 20


def test_pretraining_leaves_something_to_learn():
    texts = small_texts(400, 0)
    sudokus = [text for prompt, text in texts if "Sudoku puzzle" in prompt]
    solved = [is_solved(re.findall(r"[1-4]{16}", text)[-1]) for text in sudokus]
    assert 90 < len(sudokus) < 150
    assert sum(solved) < 0.3 * len(solved)
    assert 0.2 < sum("<answer>" in text for _, text in texts) / 400 < 0.4
    # no Sudoku after pretraining
    assert not any("4x4" in trace.question for trace in small_traces(200, 0))


@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    special = [token for token in tokenizer.all_special_tokens if token in text]
    if not special:
        assert tokenizer.decode(ids) == text


def test_the_tokenizer(tokenizer):
    assert tokenizer.get_vocab() == small_tokenizer().get_vocab()
    config = small_config(BaseConfig())
    assert 500 < len(tokenizer) <= config.vocab_size
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == [
        *("<|mdm_mask|>", "<|endoftext|>", "<|startoftext|>", "<|eot_id|>")
    ]
    assert tokenizer.mask_token_id == config.mask_token_id
    # a digit a token: a cell of a grid has a place of its own
    assert len(tokenizer.encode("1203400212341234", add_special_tokens=False)) == 16
    # words of its texts are whole
    assert len(tokenizer.encode(" apples stickers equally", add_special_tokens=False)) == 3
    ids = prompt_ids(tokenizer, "How many?")
    assert tokenizer.decode(ids) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHow many?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_its_texts_fit_the_canvas(tokenizer):
    config = load_run_config(["model=small"], command="it")
    longest = max(
        len(tokenizer.encode(text, add_special_tokens=False)) for _, text in small_texts(500, 0)
    )
    assert longest < config.sampler.gen_length
    limit = config.cold_start.data.max_length
    examples, dropped, *_ = encode_traces(small_traces(200, 0), tokenizer, "d1", 3, limit)
    assert (len(examples), dropped) == (200, 0)
    puzzle = task_prompt("d1", "sudoku", {"puzzle": "1203400212341234"})
    positions = small_config(config.base).max_position_embeddings
    assert len(prompt_ids(tokenizer, puzzle)) + config.sampler.gen_length < positions


def test_parameters():
    config = load_run_config(["model=small"], command="it")
    model = fresh_model(small_config(config.base), 0)
    # 1024 * 512 * 2 + 12 * (4 * 512^2 + 3 * 512 * 1408 + 2 * 512) + 512
    assert model.num_parameters() == 39_596_544
    plans = make_plans(config, PlanConfig("cpu"))
    assert {plan.total for plan in plans} == {39_596_544}


FEW = [
    *("model=small", "base.hidden_size=32", "base.num_hidden_layers=2", "base.batch_size=4"),
    *("base.num_attention_heads=2", "base.intermediate_size=64", "base.examples=16"),
    *("base.max_steps=3", "base.logging_steps=1", "cold_start.records=8", "cold_start.epochs=1"),
    *("cold_start.batch_size=4", "cold_start.logging_steps=1", "rl.num_prompts=2"),
    *("rl.num_generations=2", "rl.num_iterations=2", "rl.max_steps=2", "eval.num_records=2"),
    *("sampler.steps=6", "memory.gradient_checkpointing=true"),
]


def test_the_pipeline_through_all_stages(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    assert main([*FEW, f"out={out}"]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"base", "weft", "rl"}
    assert list(json.loads((out / "eval.json").read_text())) == ["base", "weft", "rl"]
    prompt = json.loads((out / "completions" / "rl.jsonl").read_text().splitlines()[0])["prompt"]
    assert "Please solve the following 4x4 Sudoku puzzle." in str(prompt)


def test_products_in_bf16(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    losses, weights = {}, {}
    for precision in ("no", "bf16"):
        run = tmp_path / precision
        words = [*FEW, "stages=[sft,rl]", f"memory.mixed_precision={precision}", f"out={run}"]
        assert main(words) == 0
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses[precision] = [row["loss"] for row in rows if row["stage"] != "rl"]
        for stage in ("base", "sft", "rl"):
            weights[precision, stage] = load_file(
                newest_checkpoint(run, stage) / "model.safetensors"
            )
    # a launcher's word is overruled, and followed where nothing is said
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for number, (words, like) in enumerate(((["memory.mixed_precision=no"], "no"), ([], "bf16"))):
        run = tmp_path / f"launched-{number}"
        with monkeypatch.context() as patch:
            patch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
            assert main([*FEW, "stages=[sft]", *words, f"out={run}"]) == 0
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["loss"] for row in rows] == losses[like]
    # one base for each, and the same training but for the rounding of its products
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert losses["no"] != losses["bf16"]
    np.testing.assert_allclose(losses["no"], losses["bf16"], rtol=0.01)
    assert {tensor.dtype for kept in weights.values() for tensor in kept.values()} == {
        torch.float32
    }
    for stage in ("base", "sft", "rl"):
        wide, narrow = weights["no", stage], weights["bf16", stage]
        assert any(not torch.equal(wide[name], narrow[name]) for name in wide)
