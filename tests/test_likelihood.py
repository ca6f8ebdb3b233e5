"""The count-based log-likelihood: exact by enumeration, and through lm-evaluation-harness."""

import json
import subprocess
import sys
from itertools import combinations
from math import comb

import pytest
import torch
from run_folders import read_lines, write_lines
from tiny_model import write_model

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


def test_the_harness_runs_a_local_task(folder, tmp_path):
    pytest.importorskip("lm_eval")
    rows = [{"question": f"Sort: {i}1", "answer": "1", "label": i % 2} for i in range(5)]
    data = write_lines(tmp_path / "data.jsonl", rows)
    for name, task in TASKS.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        task = source | {"task": name, "test_split": "test", "doc_to_text": "{{question}}"} | task
        (tmp_path / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML too
    options = f"pretrained={folder},gen_length=8,block_length=8,draws=4"
    argv = [sys.executable, "-m", "weft_rl.lm_harness", "run", "--model", "weft_rl"]
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
