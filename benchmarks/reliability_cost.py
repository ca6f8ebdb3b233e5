"""RL training time with safeguards relative to the time without.

Usage: python benchmarks/reliability_cost.py CHECKPOINT [quick]. CHECKPOINT: a tiny model after its
cold start. Both sides run the same steps of preset=tiny. Without safeguards: no NaN checks, no
signal handling, checkpoints without checksums and fsync. Measures wall-clock time; run it alone
with OMP_NUM_THREADS=1."""

import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

from machine import save
from transformers import Trainer

from weft_rl.config.load import load_run_config
from weft_rl.stages.context import StageContext  # noqa: TID251 - times training only
from weft_rl.stages.rl import run  # noqa: TID251
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.infra.atomic_checkpoints import ResumableTrainer
from weft_rl.trainers.infra.callbacks import StopOnSignal
from weft_rl.trainers.infra.nonfinite_guard import NonFiniteGuard

# steps per turn and between checkpoints, as in the preset; turns per side
STEPS, ROUNDS = 50, 11


@contextmanager
def without() -> Generator[None]:
    """Disable the trainer's safeguards."""
    with (
        patch.object(NonFiniteGuard, "compute_loss", DiffuGRPOTrainer.compute_loss),
        patch.object(NonFiniteGuard, "_get_grad_norm", Trainer._get_grad_norm),
        patch.object(ResumableTrainer, "on_checkpoint", lambda *_: None),
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
        # the first turn is a warm-up; sides swap order every other round
        for turn in range(rounds + 1):
            for name in sorted(sides, reverse=turn % 2 == 1):
                with without() if name == "without" else nullcontext():
                    took = seconds(start, Path(place) / f"{name}-{turn}", steps)
                if turn:
                    sides[name].append(took)
    pairs = zip(sides["with"], sides["without"], strict=True)
    ratios = sorted(one / other for one, other in pairs)
    result = {"steps": steps, "seconds": sides, "ratios": ratios}
    save("reliability_cost", result, quick=quick)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/reliability_cost.py CHECKPOINT [quick]")
    main(sys.argv[1], quick=sys.argv[2:] == ["quick"])
