"""Cold starts and RL in one process, or sharded by FSDP2 over several: what test_sharded.py starts.

Usage: python (or torchrun) sharded_processes.py FOLDER PROCESSES

Several processes take the launcher's file for FSDP2, but for its bfloat16. accelerate shards where
it sees GPUs only; told that it does, it shards on CPUs as well."""

import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, gather_object
from accelerate.utils.launch import prepare_multi_gpu_env
from rl_trainer import dataset, options
from rl_trainer import trainer as rl_trainer
from safetensors.torch import save_file
from small_cold_start import arguments, small_model
from torch.distributed.tensor import DTensor

from stages.context import leave_together
from weft_rl.config.schema import LoraConfig
from weft_rl.data.tiny_world import cold_start_traces
from weft_rl.data.traces import encode_traces
from weft_rl.models import head
from weft_rl.models.loading import with_lora
from weft_rl.models.tokenizer import tiny_tokenizer
from weft_rl.sampler import SamplerConfig
from weft_rl.trainers.cold_start import AnswerCollator, ColdStartTrainer
from weft_rl.trainers.objectives import Objective

LAUNCHER = Path(__file__).parents[1] / "configs" / "accelerate" / "fsdp2.yaml"
LORA = LoraConfig(2, targets=["q_proj", "up_proj"])


def shard_on_cpus():
    """What `accelerate launch` would set, and a state that takes the CPUs for GPUs."""
    parser = launch_command_parser()
    given, *_ = _validate_launch_command(parser.parse_args(["--config_file", str(LAUNCHER), "x"]))
    os.environ |= prepare_multi_gpu_env(given) | {"ACCELERATE_MIXED_PRECISION": "no"}
    set_device = PartialState.set_device

    def on_cpus(self):
        set_device(self)
        self.distributed_type = DistributedType.MULTI_GPU

    PartialState.set_device = on_cpus


def cold_start(folder, processes, lora, optim="sgd", save_strategy="no", **changes):
    made = small_model()
    if lora:
        with torch.random.fork_rng():  # the adapter's first matrix is drawn from the global state
            torch.random.default_generator.manual_seed(0)
            made = with_lora(made, LORA, "base", folder / "out")
    end = made.config.eot_token_id
    examples, *_ = encode_traces(cold_start_traces(12, 0), tiny_tokenizer(), "tiny", end, 200)
    args = arguments(
        folder,
        max_steps=5,
        optim=optim,  # Adam turns rounding noise of tiny gradients into steps
        save_strategy=save_strategy,
        per_device_train_batch_size=4 // processes,
        learning_rate=1e-1,
        **changes,
    )
    trainer = ColdStartTrainer(
        model=made,
        args=args,
        train_dataset=examples,
        data_collator=AnswerCollator(1),
        processing_class=tiny_tokenizer(),
        objective=Objective("sqrt_entropy"),
        seed=7,
        refresh_every=2,
    )
    trainer.run, trainer.stage = folder, "weft"
    return trainer


def rl(folder, processes, lora, **changes):
    chosen = options(objective="dapo", num_iterations=2, kl_coef=0.04, rollout={"resample": 1})
    # commits what it is sure of: the forwards of a rollout differ from process to process
    sampler = SamplerConfig(12, 12, 12, temperature=1.0, threshold=0.03)
    trainer = rl_trainer(
        folder / "scratch",
        chosen,
        processes=processes,
        lora=lora,
        records=dataset(4),
        sampler=sampler,
        **changes,
    )
    trainer.run, trainer.stage = folder, "rl"
    return trainer


def whole(trainer):
    """The trained weights, put together from all processes."""
    named = trainer.model.named_parameters()
    return {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().clone()
        for name, weight in named
        if weight.requires_grad
    }


RUNS = {
    "cold start": (cold_start, False),
    "cold start, LoRA": (cold_start, True),
    "RL": (rl, False),
    "RL, LoRA": (rl, True),
}


def counted(model):
    """The model's forwards without gradient, counted in a list of one number."""
    seen = [0]

    def count(*_):
        seen[0] += not torch.is_grad_enabled()

    model.register_forward_hook(count)
    return seen


def main(folder: Path, processes: int) -> None:
    if processes > 1:
        shard_on_cpus()
    head.LOGITS_TOGETHER = 300  # several parts
    forwards = []
    for name, (make, lora) in RUNS.items():
        trainer = make(folder / name, processes, lora)
        seen = counted(trainer.model)
        trainer.train()
        forwards.append(gather_object([seen[0]]))
        sharded = any(isinstance(weight, DTensor) for weight in trainer.model.parameters())
        assert sharded == (processes > 1)
        save(trainer, folder / f"{name}.safetensors")
    # the processes' rollouts are not of one length, or there would be nothing to show
    print(forwards, flush=True)


def save(trainer, path):
    weights = whole(trainer)
    if trainer.is_world_process_zero():
        save_file(weights, path)


def resumed(folder: Path, make, lora) -> None:
    """A run of Adam's, and the same from its third step on."""
    kept = {"optim": "adamw_torch", "save_strategy": "steps", "save_steps": 3}
    first = make(folder, 2, lora, **kept)
    first.train()
    save(first, folder / "first.safetensors")
    second = make(folder, 2, lora, **kept)
    second.train(resume_from_checkpoint=str(folder / "checkpoints" / second.stage / "step-3"))
    save(second, folder / "second.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
    if int(sys.argv[2]) > 1:
        for name, (make, lora) in RUNS.items():
            resumed(Path(sys.argv[1]) / f"{name}, again", make, lora)
    leave_together()
