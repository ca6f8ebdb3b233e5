"""WeFT cold start on one's own chats: python examples/weft_sft.py MODEL DATA.jsonl OUT

MODEL: a folder, a run's checkpoint or a Hub id, such as GSAI-ML/LLaDA-8B-Instruct.
DATA: lines such as {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]},
{"prompt": ..., "completion": ...}, or s1K's."""

import sys

from datasets import load_dataset
from peft import LoraConfig

from weft_rl import ColdStartConfig, ColdStartTrainer


def main(model: str, data: str, out: str, **options) -> ColdStartTrainer:
    """Train an adapter and save it in `out`; options: of ColdStartConfig."""
    rows = load_dataset("json", data_files=data, split="train").train_test_split(0.1, seed=0)
    trainer = ColdStartTrainer(
        model,
        args=ColdStartConfig(
            out,
            recipe="weft",
            max_length=4096,
            num_train_epochs=20,
            learning_rate=1e-5,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=4,
            eval_strategy="epoch",  # prints eval_nelbo, in nats per answer token
            save_strategy="epoch",
            load_best_model_at_end=True,
            **options,
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["test"],
        peft_config=LoraConfig(
            r=128, lora_alpha=256, target_modules=["q_proj", "k_proj", "v_proj"]
        ),
    )
    trainer.train()
    trainer.save_model()
    bound = trainer.evaluate()["eval_nelbo"]
    print(f"held-out bound: {bound:.3f} nats per answer token; adapter: {out}")
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
