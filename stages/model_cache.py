"""Cache of the models that runs begin with: pretrained or adapted once per configuration."""

import json
import os
import shutil
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import transformers

import weft_rl
from weft_rl.models.loading import load_tokenizer
from weft_rl.runs.atomic_io import atomic_rename
from weft_rl.runs.cache import cache_lock, cache_root
from weft_rl.runs.checksums import write_checksums
from weft_rl.runs.folder import METRICS, checkpoint_path
from weft_rl.runs.jsonl import append_line, cut_lines, read_lines
from weft_rl.stages.context import StageContext

_STEP = "step"  # file with the step of the checkpoint
# What load_model reads; the rest of a checkpoint resumes its training.
_MODEL_FILES = ("config.json", "model*.safetensors*")


def identity(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of a model's files: equal for an unchanged model."""
    stats = [(path, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def cache_path(kind: str, context: StageContext, content: Mapping[str, Any]) -> Path:
    """Return the place in the cache of what `content`, device and versions determine."""
    content = {
        **content,
        "device": context.device.type,
        "bf16": context.autocasts,
        "versions": [weft_rl.__version__, torch.__version__, transformers.__version__],
    }
    digest = blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
    return cache_root() / f"{kind}-{digest}"


def store(checkpoint: Path, context: StageContext, cached: Path) -> None:
    """Copy a stage's last checkpoint, without its training state, and its metrics to the cache.

    An existing entry stays, because another run may be copying it."""
    with cache_lock(cached.name):
        if not cached.exists():
            _store(checkpoint, context, cached)


def _store(checkpoint: Path, context: StageContext, cached: Path) -> None:
    scratch = cached.with_name(f".{cached.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for pattern in _MODEL_FILES:
        for path in checkpoint.glob(pattern):
            shutil.copy(path, scratch)
    load_tokenizer(checkpoint).save_pretrained(scratch)
    for row in read_lines(context.run / METRICS):
        if row.get("stage") == context.stage:
            append_line(scratch / METRICS, row)
    (scratch / _STEP).write_text(checkpoint.name.removeprefix("step-"), encoding="utf-8")
    atomic_rename(scratch, cached)


def restore(cached: Path, context: StageContext) -> Path:
    """Copy a cached model and its metrics into the run; return the checkpoint."""
    step = int((cached / _STEP).read_text(encoding="utf-8"))
    final = checkpoint_path(context.run, context.stage, step)
    if final.exists():
        return final
    scratch = context.scratch
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for path in cached.iterdir():
        if path.name not in (METRICS, _STEP):
            # not copytree: it hides the errno of a full disk
            shutil.copy(path, scratch)
    # lines of an interrupted training or copy
    cut_lines(context.run / METRICS, context.stage, -1)
    for row in read_lines(cached / METRICS):
        append_line(context.run / METRICS, row)
    write_checksums(scratch)
    atomic_rename(scratch, final)
    return final
