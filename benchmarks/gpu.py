"""Time and memory of LLaDA-8B's shape on one GPU: cold start, RL, sampler.

Usage: python benchmarks/gpu.py FOLDER PART... [small]. PART: ceilings, cold_start, rl, sampler,
nf4. FOLDER holds the random checkpoint (16 GB, written if missing). Runs the pipeline's stages with
preset=paper. small: a small shape for a CPU."""

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import eight_b
import torch
from machine import machine, update
from published_sampler import published_sample
from transformers import TrainerCallback

import weft_rl.stages.cold_start
import weft_rl.stages.rl
import weft_rl.trainers.rollouts
from weft_rl.config.load import load_run_config
from weft_rl.config.model import LoraConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.models.loading import load_model
from weft_rl.plan.compute import forward_flops
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plan, model_shape
from weft_rl.sampler import generate
from weft_rl.stages.context import StageContext, quiet_libraries

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
GIB = 2**30
SMALL = {"d_model": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "mlp_hidden_size": 128}
# paper preset, with d1's 6 completions of one prompt
WORDS = ["preset=paper", "rl.num_prompts=1"]


def wait() -> float:
    """Synchronize the device and return the time."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(action: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begun = wait()
    action()
    return wait() - begun


def peak() -> float:
    """Peak GiB allocated since the last call; resets the peak."""
    if not CUDA:
        return 0.0
    most = torch.cuda.max_memory_allocated() / GIB
    torch.cuda.reset_peak_memory_stats()
    return most


class Timer(TrainerCallback):
    """Seconds of each optimizer step and of the rollouts in it."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.rollouts: list[float] = []
        self.forwards = self.length = 0  # of the last rollout
        self.begun = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start at the first micro-batch."""
        self.begun = wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop after the optimizer step."""
        self.steps.append(wait() - self.begun)


def timed_stage(folder: Path, stage: str, words: list[str]) -> tuple[Any, Timer, dict[str, Any]]:
    """Run a stage like the pipeline; return config, times, and measured and planned memory."""
    given = {word.partition("=")[0] for word in words}
    usual = [word for word in WORDS if word.partition("=")[0] not in given]
    config = load_run_config([*usual, f"model={folder}", f"stages=[{stage}]", *words], command="")
    timer, run = Timer(), folder.with_name(f"{folder.name}-{stage}")
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    module = weft_rl.stages.rl if stage == "rl" else weft_rl.stages.cold_start
    own, sample = weft_rl.stages.context.train, generate

    def train(trainer: Any, context: StageContext) -> Path:
        trainer.add_callback(timer)
        return own(trainer, context)

    def rollout(*given: Any, **named: Any) -> Any:
        begun = wait()
        made = sample(*given, **named)
        timer.rollouts.append(wait() - begun)
        timer.forwards, timer.length = made.forwards, made.tokens.shape[1]
        return made

    module.train = train
    weft_rl.trainers.rollouts.generate = rollout
    gc.collect()
    peak()
    module.run(StageContext(config, run, stage, str(folder)))
    most = peak()
    shutil.rmtree(run)
    gc.collect()
    hardware = "h100" if CUDA else "cpu"
    options = PlanConfig(hardware=hardware)
    if stage == "rl":
        options = replace(options, prompt_length=timer.length - config.sampler.gen_length)
    planned = make_plan(config, options, stage).total_memory / GIB
    return config, timer, {"peak_gib": most, "planned_gib": planned}


def ceilings() -> list[dict[str, Any]]:
    """Peak bandwidth and matmul throughput of the device."""
    size = 8192 if CUDA else 512
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    big = torch.randn(2**30 if CUDA else 2**20, device=DEVICE)
    other = torch.empty_like(big)
    a @ b, other.copy_(big)
    product = median(seconds(lambda: [a @ b for _ in range(10)]) / 10 for _ in range(5))
    copied = median(seconds(lambda: other.copy_(big)) for _ in range(5))
    return [
        {
            "tera_operations": 2 * size**3 / product / 1e12,
            "tera_bytes": 2 * big.nbytes / copied / 1e12,
        }
    ]


COLD_STARTS = {
    "SFT": ("sft", []),
    "WeFT": ("weft", []),
    "WeFT, estimates kept 5 epochs": ("weft", ["cold_start.entropy_pass.rates=cached"]),
}
KEPT = 5  # epochs, the option's default


def cold_start(folder: Path, words: list[str]) -> list[dict[str, Any]]:
    """Results per method; an epoch is one step of 4 records."""
    return [
        trained(folder, name, stage, KEPT + 1, [*words, *more])
        for name, (stage, more) in COLD_STARTS.items()
    ]


def nf4(folder: Path, words: list[str]) -> list[dict[str, Any]]:
    """SFT on 4-bit weights."""
    return [trained(folder, "SFT, NF4", "sft", 3, [*words, "memory.quantization=nf4"])]


def trained(folder: Path, name: str, stage: str, epochs: int, words: list[str]) -> dict[str, Any]:
    """Time steps of 4 records of 4,096 tokens each, without the first."""
    data = folder.with_name("traces.jsonl")
    texts = ["".join(chr(97 + (i * n) % 26) for i in range(9000)) for n in (3, 5, 7, 11)]
    row = {"question": "?", "attempt": "1", "solution": "1"}
    lines = [json.dumps(row | {"thinking_trajectories": [text]}) for text in texts]
    data.write_text("\n".join(lines) + "\n")
    own = [f"data={data}", "cold_start.data.truncation=cut_trace", f"cold_start.epochs={epochs}"]
    config, timer, memory = timed_stage(folder, stage, [*own, *words])
    # with cached entropies one step in KEPT computes them, the last one here
    mean = config.cold_start.entropy_pass.rates == "cached"
    step = (fmean if mean else median)(timer.steps[1:])
    shape = model_shape(config, config.cold_start.lora, CUDA)
    length = config.cold_start.data.max_length
    # forward, input gradients, and recomputation; half of the positions need logits
    passes = 2 + config.memory.gradient_checkpointing
    done = 4 * passes * forward_flops(shape, length, length // 2)
    found = {"what": name, "step_s": step, "tera_operations": done / step / 1e12}
    print(found, flush=True)
    return found | memory | {"steps_s": timer.steps}


def rl(folder: Path, kept: list[str], rollouts: int = 2) -> list[dict[str, Any]]:
    """Time the second iteration: 6 completions of 256 tokens in 128 steps, and mu passes."""
    passes = 8
    words = [*kept, f"rl.max_steps={rollouts * passes}", f"rl.num_iterations={passes}"]
    config, timer, memory = timed_stage(folder, "rl", words)
    steps, sampled = timer.steps[-passes:], timer.rollouts[-1]
    shape = model_shape(config, LoraConfig(0), CUDA)
    one = 6 * forward_flops(shape, timer.length, config.sampler.block_length)
    step = sampled / timer.forwards
    row = {
        "what": "RL iteration",
        "weights": config.memory.dtype,
        "iteration_s": sum(steps),
        "rollout_s": sampled,
        "forwards": timer.forwards,
        "length": timer.length,
        "passes_s": median(steps[1:]),
        "first_step_s": steps[0],
        "rollout_tera_operations": one / step / 1e12,
        # base weights as stored, without adapters
        "rollout_tera_bytes": shape.weight_bytes() / step / 1e12,
        **memory,
    }
    print(row, flush=True)
    return [row]


def sampler(folder: Path, _: list[str]) -> list[dict[str, Any]]:
    """Seconds of 256 tokens in 256 steps; the published sampler is extrapolated."""
    model = load_model(str(folder), DEVICE, torch.bfloat16)
    found = []
    for rows in (1, 6):
        ids = torch.randint(97, 123, (rows, 144), generator=torch.Generator().manual_seed(0))
        ids = ids.to(DEVICE)
        exact = SamplerConfig(256, 32, 256, early_stop=False)
        published = {"gen_length": 256, "block_length": 32, "steps": 256}
        few = partial(published_sample, model, ids, **published, max_steps=8)
        few()
        theirs = seconds(few) / 8 * 256
        modes = {
            "exact": exact,
            "prefix cache": replace(exact, cache="prefix"),
            "dual cache": replace(exact, cache="dual"),
        }
        for name, config in modes.items():
            # warm up the cheap ones
            if name != "exact":
                generate(model, ids, replace(config, gen_length=32, steps=32))
            peak()
            ours = seconds(partial(generate, model, ids, config))
            found.append(
                {
                    "what": name,
                    "rows": rows,
                    "published_s": theirs,
                    "ours_s": ours,
                    "ratio": theirs / ours,
                    "tokens_per_s": rows * 256 / ours,
                    "peak_gib": peak(),
                }
            )
            print(found[-1], flush=True)
    return found


PARTS = {"cold_start": cold_start, "rl": rl, "sampler": sampler, "nf4": nf4}


def main(folder: Path, words: list[str]) -> None:
    """Measure the parts and write each as soon as it is done."""
    quiet_libraries()
    options = [word for word in words if "=" in word]
    if not folder.exists():
        shape = SMALL if "small" in words else {}
        print(f"written in {seconds(lambda: eight_b.write(folder, DEVICE, **shape)):.0f} s")
    for part in words:
        if part in PARTS or part == "ceilings":
            rows = PARTS[part](folder, options) if part in PARTS else ceilings()
            device = {"device": torch.cuda.get_device_name()} if CUDA else {}
            update("gpu", {"machine": machine() | device, part: rows})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
