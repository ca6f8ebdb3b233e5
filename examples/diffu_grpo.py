"""Diffusion RL on one's own prompts and rewards: python examples/diffu_grpo.py MODEL DATA.jsonl OUT

DATA: lines such as {"prompt": [{"role": "user", "content": "2 + 3 = ?"}], "answer": "5"}. All
columns but the prompt reach the reward functions by name."""

import sys

from datasets import load_dataset

from weft_rl import DiffuGRPOConfig, DiffuGRPOTrainer, SamplerConfig


def correct(completion: str, answer: str) -> float:
    """A reward of one completion."""
    return float(answer in completion)


def brevity(completions: list, **_: object) -> list[float]:
    """A reward in TRL's form: lists in, list out."""
    return [1 / (1 + len(messages[0]["content"])) for messages in completions]


def main(model: str, data: str, out: str, **options) -> DiffuGRPOTrainer:
    """Train the model and save it in `out`; options: of DiffuGRPOConfig."""
    given = {
        "sampler": SamplerConfig(gen_length=128, block_length=32, steps=64),
        "num_generations": 6,
        "num_iterations": 4,
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 2,
        "learning_rate": 3e-6,
        "temperature": 0.9,
        "epsilon": 0.5,
        "reward_weights": [1.0, 0.1],
        "max_steps": 1000,
    }
    trainer = DiffuGRPOTrainer(
        model,
        reward_funcs=[correct, brevity],
        args=DiffuGRPOConfig(out, **given | options),
        train_dataset=load_dataset("json", data_files=data, split="train"),
    )
    trainer.train()
    trainer.save_model()
    print(f"trained model: {out}")
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
