"""Trainers: wiring between the mathematics, transformers and TRL.

Imported lazily, since options and help must not wait for torch."""

from importlib import import_module
from typing import Any

_PUBLIC = {"ColdStartTrainer": "cold_start", "DiffuGRPOTrainer": "diffu_grpo"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
