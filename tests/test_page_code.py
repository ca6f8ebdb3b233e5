"""The Python code of README.md and docs/ runs on a tiny model, or is part of a tested example."""

import json
import re
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path

import pytest
from rl_trainer import small_model

from weft_rl import ColdStartConfig, DiffuGRPOConfig, DiffuGRPOTrainer, SamplerConfig
from weft_rl.config.load import load_run_config
from weft_rl.models.toy import tiny_tokenizer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py"))


def blocks(path):
    return re.findall(r"(?ms)^```python\n(.*?)^```", path.read_text(encoding="utf-8"))


def ran(path):
    """Run the blocks of a page in order, in one namespace that is returned."""
    names = {}
    for code in blocks(path):
        if code not in EXAMPLES:
            exec(compile(code, str(path), "exec"), names)
    return names


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The current folder, with the model and the data that the pages name."""
    small_model().save_pretrained(tmp_path / "runs" / "a")
    tiny_tokenizer().save_pretrained(tmp_path / "runs" / "a")
    questions = [{"role": "user", "content": f"{n} + 1"} for n in range(2, 6)]
    answers = [{"role": "assistant", "content": f"{n}"} for n in range(3, 7)]
    pairs = [*zip(questions, answers, strict=True)]
    chats = [{"messages": pair} for pair in pairs]
    prompts = [{"prompt": [q], "answer": a["content"]} for q, a in pairs]
    for name, rows in (("chats", chats), ("prompts", prompts)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_code_of_the_readme_trains(workplace):
    names = ran(ROOT / "README.md")
    assert (workplace / "runs" / "weft" / "model.safetensors").exists()
    assert names["rl"].state.global_step > 0
    assert any("rewards/correct/mean" in row for row in names["rl"].state.log_history)
    assert names["bound"].shape == (1,)
    assert any(parameter.grad.abs().sum() > 0 for parameter in names["model"].parameters())


def test_the_code_of_d1_is_the_preset():
    args = ran(ROOT / "docs" / "coming_from.md")["args"]
    config = load_run_config(["model=llada_8b", "stages=[rl]", "rl.preset=d1"], command="it")
    for name, value in DiffuGRPOConfig.method_arguments(config.rl).items():
        assert getattr(args, name) == value, name
    assert args.rollout_sampler == replace(config.sampler, temperature=0.9)
    completions = args.per_device_train_batch_size * args.gradient_accumulation_steps
    assert completions * 8 == config.rl.num_prompts * config.rl.num_generations  # 8 GPUs
    assert args.learning_rate == config.rl.learning_rate
    optimizer = config.rl.optimizer
    assert (args.weight_decay, args.max_grad_norm) == (
        optimizer.weight_decay,
        optimizer.max_grad_norm,
    )


def test_the_named_arguments_exist():
    """The Python column of every table."""
    text = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert all(len(row) == 4 for row in rows)
    named = re.findall(r"`([A-Za-z_.]+)", " ".join(row[2] for row in rows))
    sampler = {name.removeprefix("S.") for name in named if name.startswith("S.")}
    assert sampler <= {field.name for field in fields(SamplerConfig)}
    arguments = {*signature(ColdStartConfig).parameters, *signature(DiffuGRPOConfig).parameters}
    arguments |= {*signature(DiffuGRPOTrainer).parameters}
    others = {"load_model", "ColdStartConfig", "TrainingArguments"}
    assert {name for name in named if "." not in name} <= arguments | others


@pytest.mark.parametrize("path", PAGES[1:], ids=lambda path: path.name)
def test_the_code_of_a_page_runs(path, workplace):
    ran(path)
