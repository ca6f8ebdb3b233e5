"""Sharded models (FSDP2, DeepSpeed): one to generate with, one as reference."""

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
    """The trainer's model with all weights on every process, without gradients.

    Sharded weights are gathered once, so the number of forward passes inside may differ between
    processes. All processes must enter and leave."""
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
            # what the backward pass begins with stays gathered, as accelerate has set it up
            for module in (model, model.get_output_embeddings()):
                module.set_reshard_after_forward(False, recurse=False)
            for module in sharded:
                module.reshard()


def prepare_reference(reference: PreTrainedModel, accelerator: Accelerator) -> Any:
    """Distribute a frozen model over the processes like the trained one."""
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return prepare_deepspeed(reference, accelerator)
    if kind == DistributedType.FSDP:
        return prepare_fsdp(reference, accelerator)
    return accelerator.prepare_model(reference, evaluation_mode=True)
