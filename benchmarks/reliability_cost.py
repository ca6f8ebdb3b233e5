"""What a run's safeguards cost: RL with them and without, in turns.

Usage: python benchmarks/reliability_cost.py CHECKPOINT [quick]. CHECKPOINT: a tiny model after its
cold start. Both sides make the same steps of the preset `tiny` from the same weights and write one
checkpoint. Without: no look at losses and gradients, no signals, and the checkpoint written in its
place, without checksums and flushing. Wall-clock seconds of training, since flushing takes no CPU
time; run it alone, with OMP_NUM_THREADS=1. Writes benchmarks/results/reliability_cost.json, .md."""

import json
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from unittest.mock import patch

from machine import machine
from transformers import Trainer

from weft_rl.config.load import load_run_config
from weft_rl.stages.context import StageContext  # noqa: TID251 - training alone is timed
from weft_rl.stages.rl import run  # noqa: TID251
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.infra.atomic_checkpoints import ResumableTrainer
from weft_rl.trainers.infra.callbacks import StopOnSignal
from weft_rl.trainers.infra.nonfinite_guard import NonFiniteGuard

RESULTS = Path(__file__).parent / "results"
# steps of a turn, and so between checkpoints, as the preset has it; turns of each side
STEPS, ROUNDS = 50, 11


@contextmanager
def without() -> Generator[None]:
    """The trainer as it would be without its safeguards."""
    with (
        patch.object(NonFiniteGuard, "compute_loss", DiffuGRPOTrainer.compute_loss),
        patch.object(NonFiniteGuard, "_get_grad_norm", Trainer._get_grad_norm),
        patch.object(ResumableTrainer, "publish_checkpoint", lambda _: None),
        patch.object(StopOnSignal, "on_step_end", lambda *_, **__: None),
    ):
        yield


def seconds(start: str, folder: Path, steps: int) -> float:
    """Seconds of training of one run."""
    words = [f"model={start}", "preset=tiny", "stages=[rl]", f"out={folder}", "device=cpu"]
    words += [f"rl.max_steps={steps}", f"rl.save_steps={steps}"]
    folder.mkdir()
    taken, train = [], Trainer.train

    def timed(*args: object, **kwargs: object) -> object:
        begun = time.perf_counter()
        result = train(*args, **kwargs)
        taken.append(time.perf_counter() - begun)
        return result

    config = load_run_config(words, command="reliability_cost")
    with patch.object(Trainer, "train", timed):
        run(StageContext(config, folder, "rl", start))
    return taken[0]


def main(start: str, *, quick: bool) -> None:
    """Measure and write the results."""
    steps, rounds = (4, 1) if quick else (STEPS, ROUNDS)
    sides: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as place:
        # a turn before the first that counts; every other round the sides change places
        for turn in range(rounds + 1):
            for name in sorted(sides, reverse=turn % 2 == 1):
                with without() if name == "without" else nullcontext():
                    took = seconds(start, Path(place) / f"{name}-{turn}", steps)
                if turn:
                    sides[name].append(took)
    pairs = zip(sides["with"], sides["without"], strict=True)
    ratios = sorted(one / other for one, other in pairs)
    result = machine() | {"steps": steps, "seconds": sides, "ratios": ratios}
    text = (
        "| | seconds, median of "
        f"{rounds} turns of {steps} steps |\n|---|---|\n"
        + "".join(f"| {name} safeguards | {median(took):.2f} |\n" for name, took in sides.items())
        + f"\nRatio of neighbouring turns: median {median(ratios):.3f}, "
        f"from {ratios[0]:.3f} to {ratios[-1]:.3f}.\n"
    )
    print(text)
    if not quick:
        (RESULTS / "reliability_cost.json").write_text(json.dumps(result, indent=2) + "\n")
        (RESULTS / "reliability_cost.md").write_text(text)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/reliability_cost.py CHECKPOINT [quick]")
    main(sys.argv[1], quick=sys.argv[2:] == ["quick"])
