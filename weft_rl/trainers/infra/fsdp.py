"""Models whose weights are spread over processes: one to generate with, one to refer to."""

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
def whole_weights(trainer: Trainer) -> Generator[PreTrainedModel]:
    """The trainer's model with all weights on every process, without gradients.

    Sharded weights are gathered once: forwards inside are nobody else's business, and their number
    may differ from process to process. Entering and leaving are every process's."""
    with (
        torch.no_grad(),
        unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
    ):
        if not isinstance(model, FSDPModule):  # DeepSpeed's are gathered by TRL
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
            # what the way back begins with stays, as accelerate has set it up
            for module in (model, model.get_output_embeddings()):
                module.set_reshard_after_forward(False, recurse=False)
            for module in sharded:
                module.reshard()


def spread(reference: PreTrainedModel, accelerator: Accelerator) -> Any:
    """A model that is not trained, over the processes as the one that is."""
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return prepare_deepspeed(reference, accelerator)
    if kind == DistributedType.FSDP:
        return prepare_fsdp(reference, accelerator)
    return accelerator.prepare_model(reference, evaluation_mode=True)
