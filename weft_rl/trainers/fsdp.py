"""Sharded models (FSDP2, DeepSpeed): gathering for generation, and reference models."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, Trainer
from trl.models import prepare_deepspeed, prepare_fsdp, unwrap_model_for_generation


@contextmanager
def gathered_model(trainer: Trainer) -> Generator[PreTrainedModel]:
    """Yield the trainer's model with all weights on every process, without gradients.

    Weights are gathered once, so processes may run different numbers of forward passes. All
    processes must enter and leave."""
    with (
        torch.no_grad(),
        unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
    ):
        if not isinstance(model, FSDPModule):  # TRL gathers DeepSpeed's
            yield model
            return
        sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
        model.set_reshard_after_forward(False)
        try:
            for module in sharded:
                module.unshard()
            yield model
        finally:
            plugin: Any = trainer.accelerator.state.fsdp_plugin
            model.set_reshard_after_forward(bool(plugin.reshard_after_forward))
            # accelerate keeps the first modules of the backward pass unsharded
            for module in (model, model.get_output_embeddings()):
                module.set_reshard_after_forward(False, recurse=False)
            for module in sharded:
                module.reshard()


def prepare_reference(reference: PreTrainedModel, accelerator: Accelerator) -> Any:
    """Distribute a frozen model like the trained one."""
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return prepare_deepspeed(reference, accelerator)
    if kind == DistributedType.FSDP:
        return prepare_fsdp(reference, accelerator)
    return accelerator.prepare_model(reference, evaluation_mode=True)
