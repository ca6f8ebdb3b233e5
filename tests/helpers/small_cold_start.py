"""A model and training arguments under which a cold start takes a moment."""

from transformers import TrainingArguments

from weft_rl.config.schema import BaseConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import tiny_config


def small_model():
    size = BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    return fresh_model(tiny_config(size), 0)


def arguments(folder, **changes):
    """Six steps, a line each, a checkpoint after three, on the CPU and without a word."""
    options = {
        "output_dir": str(folder / "scratch"),
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 3,
        "remove_unused_columns": False,
    }
    return TrainingArguments(**options | changes)
