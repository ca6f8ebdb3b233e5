"""A cold start on the tiny model in one or more processes: what test_distributed.py starts.

Usage: python (or torchrun) cold_start_process.py FOLDER METHOD BATCH_PER_PROCESS"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from small_cold_start import arguments, small_model

from weft_rl.data.sft_examples import encode_traces
from weft_rl.data.toy.tiny import cold_start_traces
from weft_rl.diffusion.recipes import recipe_of
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.stages.context import leave_together
from weft_rl.trainers.cold_start import ColdStartTrainer
from weft_rl.trainers.collator import AnswerCollator


def main(folder: Path, method: str, batch: int) -> None:
    model = small_model()
    end = model.config.eot_token_id
    # of an epoch's three batches of four the last lacks one, and the last step has one batch
    traces = cold_start_traces(11, 0)
    examples, *_ = encode_traces(traces, tiny_tokenizer(), "tiny", end, 200)
    trainer = ColdStartTrainer(
        model=model,
        args=arguments(
            folder,
            max_steps=5,
            optim="sgd",  # Adam turns rounding noise of tiny gradients into steps
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=2,
            learning_rate=1e-1,
            save_strategy="no",
        ),
        train_dataset=examples,
        data_collator=AnswerCollator(1),
        objective=recipe_of(method, "answer", False),
        seed=7,
        refresh_every=2,
    )
    trainer.run, trainer.stage = folder, method
    trainer.train()
    table = trainer.token_table.of_all(trainer.accelerator)
    if trainer.is_world_process_zero():
        weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.clone() for k, v in weights.items()}, folder / "weights.safetensors")
        lines = [row for row in trainer.state.log_history if "loss" in row]
        (folder / "told.json").write_text(json.dumps({"lines": lines, "tokens": table.rows()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    leave_together()
