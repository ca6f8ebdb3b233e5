"""Cold starts and RL sharded over two processes, for test_sharded.py.

Usage: torchrun --nproc-per-node 2 sharded_processes.py FOLDER fsdp2|zero2|zero3

Uses the launcher's file of that name without bfloat16. accelerate enables FSDP2 only on GPUs;
reporting CPUs as GPUs makes it shard on CPUs."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, gather_object
from accelerate.utils.launch import prepare_multi_gpu_env
from rl_trainer import dataset, options
from rl_trainer import trainer as rl_trainer
from safetensors.torch import save_file
from small_cold_start import examples, small_model
from small_cold_start import trainer as cold_start_trainer
from torch.distributed.tensor import DTensor

from weft_rl.config.model import LoraConfig
from weft_rl.models import lm_head as head
from weft_rl.models.loading import with_lora
from weft_rl.sampler import SamplerConfig
from weft_rl.stages.context import leave_together

LAUNCHERS = Path(__file__).parents[2] / "configs" / "accelerate"
FEW = 300  # logits at a time: several chunks per forward
FORWARDS = "forwards.json"  # forward passes of every run and process
LORA = LoraConfig(2, targets=["q_proj", "up_proj"])


def shard_on_cpus(kind):
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    path = LAUNCHERS / f"{kind}.yaml"
    if kind != "fsdp2":
        import yaml

        given = yaml.safe_load(path.read_text())["deepspeed_config"]
        told = {f"ACCELERATE_DEEPSPEED_{key.upper()}": str(given[key]).lower() for key in given}
        told["ACCELERATE_DEEPSPEED_ZERO3_INIT"] = told["ACCELERATE_DEEPSPEED_ZERO3_INIT_FLAG"]
        os.environ |= told | {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}
        os.environ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] = "1"
        return
    parser = launch_command_parser()
    given, *_ = _validate_launch_command(parser.parse_args(["--config_file", str(path), "x"]))
    os.environ |= prepare_multi_gpu_env(given) | {"ACCELERATE_MIXED_PRECISION": "no"}
    set_device = PartialState.set_device

    def on_cpus(self):
        set_device(self)
        self.distributed_type = DistributedType.MULTI_GPU

    PartialState.set_device = on_cpus


def cold_start(folder, processes, lora, optim="sgd", save_strategy="no", **changes):
    made = small_model()
    if lora:
        with torch.random.fork_rng():  # the global state seeds the adapter
            torch.random.default_generator.manual_seed(0)
            made = with_lora(made, LORA, "base", folder / "out")
    return cold_start_trainer(
        folder,
        "sqrt_entropy",
        batch=4 // processes,
        model=made,
        train_dataset=examples(12),
        entropy_refresh_epochs=2,
        stage="weft",
        max_steps=5,
        optim=optim,  # Adam amplifies rounding noise of tiny gradients
        save_strategy=save_strategy,
        learning_rate=1e-1,
        **changes,
    )


def rl(folder, processes, lora, **changes):
    chosen = options(loss_type="dapo", num_iterations=2, kl_coef=0.04, rollout={"resample": 1})
    # threshold decoding: forward passes differ between processes
    sampler = SamplerConfig(12, 12, 12, temperature=1.0, threshold=0.03)
    trainer = rl_trainer(
        folder / "scratch",
        chosen,
        processes=processes,
        lora=lora,
        records=dataset(4),
        sampler=sampler,
        run=folder,
        **changes,
    )
    return trainer


def whole(trainer):
    named = dict(trainer.model.named_parameters())
    gathered = nullcontext()
    if trainer.is_deepspeed_enabled:
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters([*named.values()])
    with gathered:
        return {
            name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().clone()
            for name, weight in named.items()
            if weight.requires_grad
        }


RUNS = {
    "cold start": (cold_start, False),
    "cold start, LoRA": (cold_start, True),
    "RL": (rl, False),
    "RL, LoRA": (rl, True),
}
RESUMED = ("cold start, LoRA", "RL")


def counted(model):
    """Count the model's no-grad forwards in a list of one number."""
    seen = [0]

    def count(*_):
        seen[0] += not torch.is_grad_enabled()

    model.register_forward_hook(count)
    return seen


def train_all(folder: Path, processes: int) -> list[list[int]]:
    """Save the weights of all runs; return no-grad forwards by run and process."""
    forwards = []
    for name, (make, lora) in RUNS.items():
        trainer = make(folder / name, processes, lora)
        seen = counted(trainer.model)
        trainer.train()
        forwards.append(gather_object([seen[0]]))
        kind = trainer.accelerator.distributed_type
        assert (kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)) == (processes > 1)
        save(trainer, folder / f"{name}.safetensors")
    return forwards


def save(trainer, path):
    weights = whole(trainer)
    if trainer.is_world_process_zero():
        save_file(weights, path)


def resume(folder: Path, make, lora) -> None:
    kept = {"optim": "adamw_torch", "save_strategy": "steps", "save_steps": 3}
    first = make(folder, 2, lora, **kept)
    first.train()
    save(first, folder / "first.safetensors")
    second = make(folder, 2, lora, **kept)
    second.train(resume_from_checkpoint=str(folder / "checkpoints" / second.stage / "step-3"))
    save(second, folder / "second.safetensors")


if __name__ == "__main__":
    place, kind = Path(sys.argv[1]), sys.argv[2]
    shard_on_cpus(kind)
    head.LOGITS_TOGETHER = FEW
    forwards = train_all(place, 2)
    if PartialState().is_main_process:  # simultaneous prints may share a line
        (place / FORWARDS).write_text(json.dumps(forwards))
    for name in RESUMED if kind == "fsdp2" else ():
        resume(place / f"{name}, again", *RUNS[name])
    leave_together()
