"""Facts of a checkpoint's files: place, family, tensors, sizes."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.filesize import decimal

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.checkpoints.lora_merge import chain
from weft_rl.checkpoints.safetensors_index import check_weights, read_folder
from weft_rl.config.fields import argument
from weft_rl.config.model import LoraConfig
from weft_rl.families import PUBLISHED, family_of, read_config
from weft_rl.families.a2d import ADDED_MASK, is_autoregressive
from weft_rl.families.base import Family
from weft_rl.families.shape import ModelShape, shape_of
from weft_rl.models.memory import free_memory
from weft_rl.runs.checksums import SUMS, verify_weights
from weft_rl.runs.folder import run_of
from weft_rl.verify.report import Report


class Found(NamedTuple):
    """A checkpoint."""

    place: str  # Hub id, or the value of model=
    folder: Path
    base: Path  # folder without its adapters
    adapters: list[Path]
    config: dict[str, Any]  # of the base, completed; of its A2D family if autoregressive
    family: Family
    autoregressive: bool

    @property
    def lacks_mask(self) -> bool:
        """Whether there is no mask token, so that its row is new."""
        return ADDED_MASK in self.config

    @property
    def guesses_mask(self) -> bool:
        """Whether no file names the mask token, so that its id is the next free one."""
        return bool(self.config.get("guessed_mask_token"))


def find(model: str) -> Found:
    """Return the checkpoint for `model=`. Raises UserError if it is unavailable or unknown."""
    place = PUBLISHED.get(model, model)
    folder = resolve_checkpoint(place)
    base, adapters = chain(folder)
    is_causal, config = is_autoregressive(read_config(base)), read_config(base, adapt=True)
    return Found(place, folder, base, adapters, config, family_of(config, base)[0], is_causal)


def describe(report: Report, found: Found, dtype: torch.dtype, device: torch.device) -> None:
    """Report place, layout and sizes. Raises UserError for missing or damaged weights."""
    report.fact("folder", found.folder.resolve())
    run = run_of(str(found.folder))
    if run is not None:
        stage, step = found.folder.resolve().parts[-2:]
        report.fact("run", f"{run}, stage {stage}, {step}")
    if found.adapters:
        report.fact("adapters", f"{len(found.adapters)}, merged into {found.base.resolve()}")
    if found.autoregressive:
        kind = found.family.transformers_type
        report.fact("family", f"none: {kind}, autoregressive (predicts the next token)")
        report.fact("to adapt it", f"weft-rl run model={found.place} stages=[a2d,weft,rl]")
    else:
        report.fact("family", f"{found.family.name}, {_network(found)}")
    report.fact("run on", found.family.run_on or "no published weights yet, layout tests only")
    shapes, stored = check_weights(found.base, adapt=True), read_folder(found.base)
    for part in (found.base, *found.adapters):
        verify_weights(part)
    dtypes = ", ".join(sorted({item.dtype for item in stored.values()}))
    shape = shape_of(found.base, LoraConfig(0))
    report.fact(
        "tensors",
        f"{len(shapes)}, all present with the shapes of config.json; {dtypes}; embedding and head "
        f"{'tied' if shape.sizes.tied else 'not tied'}",
    )
    sums = [part for part in (found.base, *found.adapters) if (part / SUMS).exists()]
    report.fact("checksums", f"{SUMS} verified" if sums else f"no {SUMS}")
    embedding, _ = found.family.vocabulary(shape.sizes)
    is_grown = shape.sizes.vocab_size > shapes[embedding.upstream][0]
    row = ", with a row for the mask token that the files lack" if is_grown else ""
    report.fact("parameters", f"{shape.num_params:,}{row}")
    files = {item.file for item in stored.values()}
    size = sum(file.stat().st_size for file in files)
    report.fact("on disk", f"{decimal(size)} in {len(files)} file{'s' * (len(files) > 1)}")
    report.fact("memory", _memory(shape, dtype, device))


def _network(found: Found) -> str:
    """Describe what config.json says about the predictions."""
    parts = [f"model_type {found.config['model_type']}"]
    names = ("logit_shift", "block_size")
    parts += [f"{name} {argument(found.config[name])}" for name in names if name in found.config]
    return ", ".join(parts)


def _memory(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> str:
    """Describe the memory of the weights; that of training is `weft-rl plan`'s."""
    name = str(dtype).removeprefix("torch.")
    nf4 = replace(shape, weights="nf4").weight_bytes()
    return (
        f"{decimal(shape.num_params * dtype.itemsize)} of weights in {name} (nf4: "
        f"{decimal(int(nf4))}); {decimal(free_memory(device))} free on {device}; training: "
        "weft-rl plan"
    )
