"""Step time of WeFT's entropy pass relative to SFT, and peak memory in separate processes.

Usage: python benchmarks/cold_start_overhead.py [quick]. Methods alternate on the same records."""

import resource
import subprocess
import sys
import tempfile
import time
from statistics import median

import torch
from machine import save

from weft_rl.data.sft_examples import Example
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.trainers.cold_start import ColdStartTrainer
from weft_rl.trainers.cold_start_config import ColdStartConfig

BATCH, PROMPT_SHARE, EPOCHS_KEPT = 4, 0.1, 5  # s1K's prompts are short
METHODS = {
    "SFT": ("sft", {}),
    "WeFT fresh": ("weft", {}),
    "WeFT fresh, bf16 estimate": ("weft", {"entropy_bf16": True}),
    "WeFT cached": ("weft", {"entropy_refresh_epochs": EPOCHS_KEPT}),
    "WeFT cached, bf16 estimate": (
        "weft",
        {"entropy_refresh_epochs": EPOCHS_KEPT, "entropy_bf16": True},
    ),
}
# (vocabulary, length): scaling with both
SHAPES = [(32768, 128), (32768, 256), (65536, 128)]


def prepared(method: str, vocab_size: int, length: int, folder: str) -> ColdStartTrainer:
    """A trainer with its optimizer, on EPOCHS_KEPT batches of random records."""
    config = LLaDAConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=704,
        mask_token_id=vocab_size - 1,
        eos_token_id=vocab_size - 2,
        eot_token_id=vocab_size - 3,
        pad_token_id=vocab_size - 2,
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size - 4, (BATCH, length), generator=generator).tolist()
    recipe, options = METHODS[method]
    trainer = ColdStartTrainer(
        model=fresh_model(config, 0),
        args=ColdStartConfig(
            folder, seed=0, use_cpu=True, report_to="none", recipe=recipe, **options
        ),
        train_dataset=[Example(i, row, int(PROMPT_SHARE * length)) for i, row in enumerate(ids)],
    )
    trainer.create_optimizer()
    return trainer


def step(trainer: ColdStartTrainer, epoch: int) -> float:
    """Seconds of one optimizer step on the records at the given epoch."""
    trainer.data_collator.epoch = epoch
    begun = time.perf_counter()
    batch = trainer.data_collator(trainer.train_dataset)
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return time.perf_counter() - begun


def timed(vocab_size: int, length: int, rounds: int) -> dict[str, float]:
    """Median seconds per step by method; with the cache, the mean over its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: prepared(name, vocab_size, length, folder) for name in METHODS}
        seconds: dict[str, list[float]] = {name: [] for name in METHODS}
        for trainer in trainers.values():
            step(trainer, 0)
            trainer.entropy_cache.epochs.clear()
        names = [*METHODS]
        for turn in range(rounds):
            taken = dict.fromkeys(METHODS, 0.0)
            for epoch in range(turn * EPOCHS_KEPT, (turn + 1) * EPOCHS_KEPT):
                names = names[1:] + names[:1]  # rotate the order
                for name in names:
                    taken[name] += step(trainers[name], epoch) / EPOCHS_KEPT
            for name in METHODS:
                seconds[name].append(taken[name])
    return {name: median(values) for name, values in seconds.items()}


def peak_memory(method: str, vocab_size: int, length: int) -> float:
    """Peak MiB of two steps in a separate process, including imports and model."""
    command = [sys.executable, __file__, "memory", method, str(vocab_size), str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _memory(method: str, vocab_size: int, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = prepared(method, vocab_size, length, folder)
        for epoch in range(2):
            step(trainer, epoch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(*, quick: bool) -> None:
    """Measure all shapes, or the first one with `quick`, and write the results."""
    rows = []
    for vocab_size, length in SHAPES[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            model = prepared("SFT", vocab_size, length, folder).model
            parameters = sum(p.numel() for p in model.parameters())
        memory = {name: peak_memory(name, vocab_size, length) for name in ("SFT", "fresh")}
        seconds = timed(vocab_size, length, rounds=1 if quick else 2)
        rows.append(
            {
                "vocab_size": vocab_size,
                "length": length,
                "parameters": parameters,
                "seconds": seconds,
                "memory_mib": memory,
            }
        )
    settings = {"batch": BATCH, "prompt_share": PROMPT_SHARE, "epochs_kept": EPOCHS_KEPT}
    save("cold_start_overhead", settings | {"rows": rows}, quick=quick)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        _memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(quick=sys.argv[1:] == ["quick"])
