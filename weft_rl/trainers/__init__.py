"""Trainers: wiring of the mathematics, transformers and TRL. Lazy, because torch loads slowly."""

from importlib import import_module
from typing import Any

_PUBLIC = {"ColdStartTrainer": "cold_start", "DiffuGRPOTrainer": "diffu_grpo"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
