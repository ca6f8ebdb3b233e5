"""What the supported releases of transformers call differently."""

from dataclasses import fields

from transformers import TrainingArguments

# The argument that has layers computed again on the way back. transformers 5.17 has the old name
# only, 5.23 warns of it.
RECOMPUTE = "activation_checkpointing"
if RECOMPUTE not in {field.name for field in fields(TrainingArguments)}:
    RECOMPUTE = "gradient_checkpointing"
