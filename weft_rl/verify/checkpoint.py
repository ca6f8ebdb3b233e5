"""Facts of a checkpoint's files: place, family, tensors, sizes."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.filesize import decimal
from transformers import AutoConfig, AutoModelForCausalLM

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.checkpoints.lora_merge import chain, read_updates
from weft_rl.checkpoints.safetensors_index import Stored, check_tensors, check_weights, read_folder
from weft_rl.config.model import LoraConfig
from weft_rl.families import PUBLISHED, family_of, read_config
from weft_rl.families.base import Family
from weft_rl.families.shape import shape_of
from weft_rl.models.memory import free_memory
from weft_rl.runs.checksums import SUMS, verify_weights
from weft_rl.runs.folder import run_of
from weft_rl.verify.report import Report

# Which weights of a family this package has been run on.
_UNTRIED = "no published weights yet, layout tests only"
_TRIED: Mapping[str, str] = {"a2d-llama": "SmolLM2-135M-Instruct"}
# Autoregressive models that stage `a2d` adapts, by model_type.
_ADAPTABLE = ("llama", "qwen2", "qwen3")


class Found(NamedTuple):
    """A checkpoint."""

    place: str  # Hub id, or the value of model=
    folder: Path
    base: Path  # folder without its adapters
    adapters: list[Path]
    config: dict[str, Any]  # config.json of the base
    family: Family | None  # None: autoregressive


def find(model: str) -> Found:
    """Return the checkpoint for `model=`. Raises UserError if it is unavailable or unknown."""
    place = PUBLISHED.get(model, model)
    folder = resolve_checkpoint(place)
    base, adapters = chain(folder)
    config = read_config(base)
    is_causal = config.get("model_type") in _ADAPTABLE and config.get("is_causal") is not False
    family = None if is_causal else family_of(config, base)[0]
    return Found(place, folder, base, adapters, config, family)


def describe(report: Report, found: Found, dtype: torch.dtype, device: torch.device) -> None:
    """Report place, layout and sizes. Raises UserError for missing or damaged weights."""
    report.fact("folder", found.folder.resolve())
    run = run_of(str(found.folder))
    if run is not None:
        stage, step = found.folder.resolve().parts[-2:]
        report.fact("run", f"{run}, stage {stage}, {step}")
    if found.adapters:
        report.fact("adapters", f"{len(found.adapters)}, merged into {found.base}")
    name = found.config.get("model_type")
    if found.family is None:
        report.fact("family", f"none: {name}, autoregressive (predicts the next token)")
        report.fact("to adapt it", f"weft-rl run model={found.place} stages=[a2d,weft,rl]")
    else:
        report.fact("family", f"{found.family.name}, model_type {name}")
        report.fact("run on", _TRIED.get(found.family.name, _UNTRIED))
    stored, shapes = _checked_weights(found)
    for part in (found.base, *found.adapters):
        verify_weights(part)
    dtypes = ", ".join(sorted({item.dtype for item in stored.values()}))
    tied = "tied" if found.config.get("tie_word_embeddings") is True else "not tied"
    report.fact(
        "tensors",
        f"{len(shapes)}, all present with the shapes of config.json; {dtypes}; input and output "
        f"embeddings {tied}",
    )
    sums = [part for part in (found.base, *found.adapters) if (part / SUMS).exists()]
    report.fact("checksums", f"{SUMS} verified" if sums else f"no {SUMS}")
    count = sum(map(prod, shapes.values()))
    if found.family is not None:
        count = shape_of(found.base, LoraConfig(0)).num_params
    report.fact("parameters", f"{count:,}")
    files = {item.file for item in stored.values()}
    size = sum(file.stat().st_size for file in files)
    report.fact("on disk", f"{decimal(size)} in {len(files)} file{'s' * (len(files) > 1)}")
    report.fact("memory", _memory(found, count, dtype, device))


def _checked_weights(found: Found) -> tuple[dict[str, Stored], dict[str, tuple[int, ...]]]:
    """Return the stored tensors and the expected shapes, adapters checked against them."""
    stored = read_folder(found.base)
    if found.family is None:
        shapes, names = _causal_shapes(found.base)
        own = {name: item for name, item in stored.items() if name in shapes or name not in names}
        check_tensors(found.base, own, shapes)
    else:
        shapes = check_weights(found.base)
    read_updates(found.adapters, shapes)
    return stored, shapes


def _causal_shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Shapes of transformers' class without tied copies, and all names that a file may have."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    return shapes, {*model.state_dict()}


def _memory(found: Found, count: int, dtype: torch.dtype, device: torch.device) -> str:
    """Describe the memory of the weights; that of training is `weft-rl plan`'s."""
    name = str(dtype).removeprefix("torch.")
    text = f"{decimal(count * dtype.itemsize)} of weights in {name}"
    if found.family is not None:
        shape = replace(shape_of(found.base, LoraConfig(0)), weights="nf4")
        text += f" (nf4: {decimal(int(shape.weight_bytes()))})"
    return f"{text}; {decimal(free_memory(device))} free on {device}; training: weft-rl plan"
