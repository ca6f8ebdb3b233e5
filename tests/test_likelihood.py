"""The count-based log-likelihood: exact by enumeration, and through lm-evaluation-harness."""

import json
import subprocess
import sys
from itertools import combinations
from math import comb
from types import SimpleNamespace

import pytest
import torch
from bpe import llada_bpe, small_network
from refusals import refusal
from run_folders import read_lines, write_lines
from tiny_model import write_model

from weft_rl.config.sampler import SamplerConfig
from weft_rl.evaluation.likelihood import log_likelihood
from weft_rl.models.loading import load_model

PROMPT, ANSWER = torch.tensor([7, 8]), torch.tensor([9, 10, 11])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), initializer_range=0.5)


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder), torch.device("cpu"), torch.float32)


def enumerated(model):
    """Sum over the number of masks l = 1, 2, 3 of the mean over sets of that size of the masked
    tokens' mean log-probability."""
    total = 0.0
    for count in (1, 2, 3):
        for places in combinations(range(3), count):
            ids = torch.cat([PROMPT, ANSWER])
            ids[[2 + place for place in places]] = model.config.mask_token_id
            with torch.no_grad():
                logp = model(ids[None]).logits[0, 2:].log_softmax(-1)
            inner = sum(float(logp[place, ANSWER[place]]) for place in places)
            total += inner / count / comb(3, count)
    return total


def test_the_estimate_is_the_enumerated_bound(model):
    generator = torch.Generator().manual_seed(0)
    options = {"draws": 3000, "batch_size": 500, "generator": generator}
    values = [log_likelihood(model, PROMPT, ANSWER, **options) for _ in range(4)]
    # a draw's deviation is about 3 nats: 0.1 is some four standard errors of 12,000 draws
    assert sum(values) / 4 == pytest.approx(enumerated(model), abs=0.1)
    batches = []
    for size in (16, 5):
        options = {"draws": 16, "batch_size": size, "generator": generator.manual_seed(3)}
        batches.append(log_likelihood(model, PROMPT, ANSWER, **options))
    assert batches[0] == pytest.approx(batches[1], abs=1e-5)


def test_one_token_needs_one_draw(model):
    ids = torch.tensor([[7, 8, model.config.mask_token_id]])
    with torch.no_grad():
        wanted = float(model(ids).logits[0, 2].log_softmax(-1)[9])
    generator = torch.Generator().manual_seed(0)
    options = {"draws": 2, "batch_size": 2, "generator": generator}
    assert log_likelihood(model, PROMPT, ANSWER[:1], **options) == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ValueError, match="the answer is empty"):
        log_likelihood(model, PROMPT, ANSWER[:0], **options)


def test_guidance_of_a_token_by_hand(model):
    """u + (w + 1)(c - u) with w = 1.5, where u sees a masked prompt."""
    mask = model.config.mask_token_id
    with torch.no_grad():
        c, u = model(torch.tensor([[7, 8, mask], [mask, mask, mask]])).logits[:, 2]
    wanted = float((u + 2.5 * (c - u)).log_softmax(-1)[9])
    options = {"draws": 2, "batch_size": 2, "generator": torch.Generator().manual_seed(0)}
    value = log_likelihood(model, PROMPT, ANSWER[:1], cfg_scale=1.5, **options)
    assert value == pytest.approx(wanted, abs=1e-5)
    assert value != pytest.approx(log_likelihood(model, PROMPT, ANSWER[:1], **options), abs=1e-3)


def test_options_have_the_names_of_llada(folder):
    pytest.importorskip("lm_eval")
    from weft_rl.lm_harness import WeftLM

    common = {"mask_id": 20, "gen_length": 8, "block_length": 4, "steps": 4, "cfg": 0.5}
    common |= {"remasking": "random", "mc_num": 4, "batch_size": 2, "device": "cpu"}
    options = {"max_length": 20, "is_check_greedy": False, "model_path": str(folder)}
    # the harness passes its own batch size, 1, too
    lm = WeftLM.create_from_arg_obj(common | options, {"batch_size": 1, "device": None})
    assert lm.model.config.mask_token_id == 20
    assert (lm.batch_size, lm.config.mc_num) == (2, 4)
    assert lm.sampler == SamplerConfig(8, 4, 4, remasking="random", cfg_scale=0.5)
    request = SimpleNamespace(args=("Sort: 12", "1234"))
    ((value, is_greedy),) = lm.loglikelihood([request])
    assert value < 0
    assert is_greedy is False
    # 13 tokens of context leave room for 7 of 20
    long = SimpleNamespace(args=("1234123412341", {}))
    assert refusal(lm.generate_until, [long]).startswith("max_length=20: ")
    assert refusal(lm.loglikelihood_rolling, [SimpleNamespace(args=("1" * 20,))])
    assert len(lm.generate_until([SimpleNamespace(args=("123412341234", {}))])) == 1
    other = {"pretrained": str(folder), "mask_id": 10**6, "device": "cpu"}
    assert refusal(WeftLM, **other).startswith("mask_id=1000000: ")
    assert refusal(WeftLM, **other, model_path="a").startswith("model_path=")


def test_blanks_before_a_continuation(tmp_path, monkeypatch):
    """As in LLaDA's evaluation, " 5" is scored wherever its blank was; chats end with a header."""
    pytest.importorskip("lm_eval")
    from weft_rl import lm_harness

    tokenizer, seen = llada_bpe(), []
    small_network(tokenizer, eot_token_id=tokenizer.get_vocab()["<|eot_id|>"]).save_pretrained(
        tmp_path
    )
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(
        lm_harness,
        "log_likelihood",
        lambda model, prompt, answer, **_: seen.append((prompt.tolist(), answer.tolist())) or 0.0,
    )
    lm = lm_harness.WeftLM(model_path=str(tmp_path), device="cpu", is_check_greedy=False)
    chat = lm.apply_chat_template([{"role": "user", "content": "Q"}])
    pairs = [("Q:", " 5"), ("Q: ", "5"), ("Q:\n", "5"), (chat, "5")]
    assert lm.loglikelihood([SimpleNamespace(args=pair) for pair in pairs]) == [(0.0, False)] * 4
    texts = [tuple(tokenizer.decode(ids) for ids in pair) for pair in seen]
    assert texts == [("Q:", " 5"), ("Q:", " 5"), ("Q:", "\n5"), (chat, "5")]
    assert seen[0] == seen[1]
    # as Qwen's, without a begin token
    lm.tokenizer.bos_token = None
    assert lm.loglikelihood_rolling([SimpleNamespace(args=("5",))]) == [0.0]
    assert seen[-1][0] == [tokenizer.eos_token_id]


TASKS = {
    "weft_generate": {
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["9"]},
        "metric_list": [{"metric": "exact_match"}],
    },
    "weft_choice": {
        "output_type": "multiple_choice",
        "doc_to_choice": ["1", "2"],
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}],
    },
}


@pytest.mark.slow
def test_the_harness_runs_a_local_task(folder, tmp_path):
    """The command line of LLaDA's eval_llada.py."""
    pytest.importorskip("lm_eval")
    rows = [{"question": f"Sort: {i}1", "answer": "1", "label": i % 2} for i in range(5)]
    data = write_lines(tmp_path / "data.jsonl", rows)
    for name, task in TASKS.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        task = source | {"task": name, "test_split": "test", "doc_to_text": "{{question}}"} | task
        (tmp_path / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML too
    options = f"model_path={folder},gen_length=8,steps=8,block_length=8,mc_num=4"
    options += ",cfg=0.5,is_check_greedy=False"
    argv = [sys.executable, "-m", "weft_rl.lm_harness", "--model", "llada_dist"]
    argv += ["--tasks", ",".join(TASKS), "--include_path", str(tmp_path), "--device", "cpu"]
    argv += ["--model_args", options, "--output_path", str(tmp_path / "out"), "--log_samples"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (tmp_path / "out").rglob("results*.json")
    results = json.loads(found.read_text())["results"]
    assert set(results) == set(TASKS)
    assert 0 <= results["weft_choice"]["acc,none"] <= 1
    (samples,) = (tmp_path / "out").rglob("samples_weft_generate*.jsonl")
    texts = [row["resps"][0][0] for row in read_lines(samples)]
    assert len(texts) == 5
    assert not any("9" in text for text in texts)
