"""Private or renamed parts of transformers and TRL in the supported releases."""

from collections.abc import Mapping
from dataclasses import fields

from transformers import TrainingArguments

# Argument for activation checkpointing: transformers 5.17 has the old name only, 5.23 warns.
ACTIVATION_CHECKPOINTING = "activation_checkpointing"
if ACTIVATION_CHECKPOINTING not in {field.name for field in fields(TrainingArguments)}:
    ACTIVATION_CHECKPOINTING = "gradient_checkpointing"

# Overridden private methods of transformers and TRL, and the reason.
PRIVATE_OVERRIDES: Mapping[str, str] = {
    "_get_grad_norm": "each step's gradient norm, before the step; callbacks do not get it",
    "_get_train_sampler": "an order of the examples that depends on (seed, epoch) only",
    "_generate": "TRL decodes completions without special tokens; evaluation keeps them",
    "_get_per_token_logps_and_entropies": "TRL would compute autoregressive log-probabilities",
    "_prepare_inputs": "TRL shuffles a rollout's rows, from the global random state",
}
