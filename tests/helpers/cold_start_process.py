"""Cold start of the tiny model on one or more processes, for test_distributed.py.

Usage: python (or torchrun) cold_start_process.py FOLDER METHOD BATCH_PER_PROCESS"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from small_cold_start import examples, trainer

from weft_rl.diffusion.recipes import RECIPES
from weft_rl.stages.context import leave_together


def main(folder: Path, method: str, batch: int) -> None:
    made = trainer(
        folder,
        batch=batch,
        accumulate=2,
        # three batches of four per epoch: the last lacks one, and the last step has one batch
        train_dataset=examples(11),
        recipe=RECIPES[method].resolved("answer", False),
        entropy_refresh_epochs=2,
        stage=method,
        max_steps=5,
        optim="sgd",  # Adam amplifies rounding noise of tiny gradients
        learning_rate=1e-1,
        save_strategy="no",
    )
    made.train()
    table = made.token_table.reduced(made.accelerator)
    if made.is_world_process_zero():
        weights = made.accelerator.unwrap_model(made.model).state_dict()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.clone() for k, v in weights.items()}, folder / "weights.safetensors")
        lines = [row for row in made.state.log_history if "loss" in row]
        (folder / "log.json").write_text(json.dumps({"lines": lines, "tokens": table.rows()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    leave_together()
