"""The scripts of examples/ run, stay short, and rl_loop.py is the trainer."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from rl_trainer import small_model
from torch.testing import assert_close

from weft_rl import DiffuGRPOConfig, DiffuGRPOTrainer, SamplerConfig, load_model
from weft_rl.models.toy import tiny_tokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"
SILENT = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "max_steps": 2}


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def written(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_every_example_is_short_and_tested():
    sizes = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    tests = Path(__file__).read_text()
    for name, size in sizes.items():
        assert size <= (150 if name == "rl_loop" else 60)
        assert f'"{name}"' in tests


def test_a_cold_start_of_own_chats(start, tmp_path):
    user = {"role": "user", "content": "2 + 3"}
    rows = [{"messages": [user, {"role": "assistant", "content": str(n)}]} for n in range(20)]
    data, steps = written(tmp_path / "data.jsonl", rows), {"eval_steps": 1, "save_steps": 1}
    trainer = script("weft_sft").main(str(start), data, str(tmp_path / "out"), **SILENT | steps)
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert len(trainer.eval_dataset) == 2


def test_rl_on_own_prompts(start, tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"{n} + 3"}], "answer": str(n + 3)}
        for n in range(9)
    ]
    data, sampler = written(tmp_path / "data.jsonl", rows), SamplerConfig(8, 8, 4)
    options = {"sampler": sampler} | SILENT
    trainer = script("diffu_grpo").main(str(start), data, str(tmp_path / "out"), **options)
    assert "rewards/brevity/mean" in {key for row in trainer.state.log_history for key in row}
    load_model(tmp_path / "out")


def test_the_loss_in_ones_own_loop_lowers_the_bound(start):
    before, after = script("weft_loss_in_your_trainer").main(str(start))
    assert after < 0.8 * before


@pytest.mark.slow
def test_the_loop_without_trl_is_the_trainer(tmp_path):
    loop = script("rl_loop")
    rows = loop.rows_of(loop.training_records("sudoku", 8, 0))
    sampler, mine = SamplerConfig(12, 6, 4, temperature=1.0), small_model()

    def reward(completion, puzzle, **_):
        return (len(completion) * 7919 % 101) / 100

    tokenizer = tiny_tokenizer()
    history = loop.train(mine, tokenizer, rows, reward, sampler, loop.Options(rollouts=3))
    args = DiffuGRPOConfig(
        str(tmp_path),
        **SILENT | {"max_steps": 6},
        sampler=sampler,
        num_generations=4,
        num_iterations=2,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        beta=0.04,
        epsilon=0.5,
        seed=0,
        shuffle_dataset=False,
        logging_steps=1,
    )
    trainer = DiffuGRPOTrainer(
        small_model(), reward, args, Dataset.from_list(rows), processing_class=tokenizer
    )
    trainer.train()
    logged = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert_close(torch.tensor(logged), torch.tensor(history), rtol=1e-4, atol=1e-4)
    for one, other in zip(mine.parameters(), trainer.model.parameters(), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(mine.parameters(), small_model().parameters(), strict=True)
    )
    assert 0 <= loop.evaluate(mine, tokenizer, rows, reward, sampler) <= 1


def test_the_task_of_own_records():
    sys.path.insert(0, str(EXAMPLES))
    task = script("own_task").TASK
    sys.path.remove(str(EXAMPLES))
    records = task.generate("test", 3, 0)
    assert all(task.evaluation["exact"]("<answer>1</answer>", **record) == 0 for record in records)
    digits = records[0]["digits"]
    right = f"<answer>{''.join(sorted(digits))}</answer>"
    assert task.evaluation["exact"](right, digits=digits) == 1
