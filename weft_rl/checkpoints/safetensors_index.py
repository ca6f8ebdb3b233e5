"""Names, shapes and byte ranges of safetensors files, from their headers only."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from weft_rl.errors import UserError
from weft_rl.families import family_of, read_config
from weft_rl.families.a2d import ADDED_MASK
from weft_rl.io.safe_files import read_json, regular_size

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Floating dtypes of published weights. Integers would be quantized weights with separate scales.
_FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_OTHERS = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")
_MAX_NAMES = 4  # in a message


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # byte offset in the file
    length: int  # bytes


def read_header(path: Path) -> dict[str, Stored]:
    """Return the tensors of a file by name. Raises UserError for a damaged or incomplete file."""
    size = regular_size(path, "download it again")
    try:
        with path.open("rb") as file:
            if (prefix := file.read(8)) == b"version ":
                raise UserError(f"{path}: a Git LFS pointer; fetch the file with git lfs pull")
            with safe_open(path, "numpy"):  # validates names, shapes, ranges and the file's size
                length = int.from_bytes(prefix, "little")
                header = json.loads(file.read(length))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: damaged or incomplete, {size} bytes ({error}); download it again"
        ) from error
    header.pop("__metadata__", None)
    stored = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        shape, start = tuple(entry["shape"]), 8 + length + first
        stored[name] = Stored(path, name, entry["dtype"], shape, start, last - first)
    return stored


def read_folder(folder: Path) -> dict[str, Stored]:
    """Return every tensor of a checkpoint folder, from its index or its single file.

    Raises UserError for missing or outside files, and for an index unlike its shards."""
    index = folder / INDEX
    if not index.exists():
        if not (folder / SINGLE).exists():
            raise UserError(f"{folder}: neither {SINGLE} nor {INDEX}; {_fix(folder)}")
        return read_header(folder / SINGLE)
    content = read_json(index, "download it again")
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict):
        raise UserError(f"{index}: weight_map is missing; download it again")
    for name in weight_map.values():
        # `..` and absolute paths could read any file
        if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
            raise UserError(f"{index}: file {name!r} is not in the folder; download it again")
    files = sorted(set(weight_map.values()))
    tensors = [item for name in files for item in read_header(folder / name).values()]
    wrong = {(item.name, item.file.name) for item in tensors} ^ set(weight_map.items())
    if wrong:
        raise UserError(
            f"{index}: does not match the shards in {_join(f'{a} ({b})' for a, b in wrong)}; "
            "download them again"
        )
    return {item.name: item for item in tensors}


def _fix(folder: Path) -> str:
    others = sorted(path.name for kind in _OTHERS for path in folder.glob(kind) if path.is_file())
    if not others:
        return "name a model's folder"
    return f"save {_join(others)} as safetensors (save_pretrained); other formats are not read"


def check_weights(folder: Path, *, adapt: bool = False) -> dict[str, tuple[int, ...]]:
    """Return the validated shapes of a model folder's tensors by name, from the headers.

    adapt: also of an autoregressive model. Raises UserError for missing, extra, misshaped or
    integer tensors and a layout of transformers that differs from the family's."""
    config = read_config(folder, adapt=adapt)
    family, is_transformers = family_of(config, folder)
    if is_transformers and not family.has_one_layout:
        raise UserError(
            f"model={folder}: is in transformers' layout; convert it: weft-rl convert "
            f"{folder} out=... to=upstream"
        )
    sizes, tensors = family.sizes(config), read_folder(folder)
    shapes = {spec.upstream: spec.shape for spec in family.tensors(sizes)}
    if sizes.tied:  # some files repeat the tied head
        embedding, head = (spec.upstream for spec in family.vocabulary(sizes))
        shapes |= {head: shapes[embedding]} if head in tensors else {}
    if ADDED_MASK in config:  # the row of a new mask token may be missing
        rows, width = sizes.vocab_size, sizes.hidden_size
        for spec in family.vocabulary(sizes):
            stored = tensors.get(spec.upstream)
            if stored is not None and stored.shape == (rows - 1, width):
                shapes[spec.upstream] = stored.shape
    check_tensors(folder, tensors, shapes)
    return shapes


def check_tensors(
    folder: Path, tensors: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise UserError for missing, extra, misshaped or integer tensors."""
    if lacking := shapes.keys() - tensors.keys():
        raise UserError(f"{folder}: missing tensors: {_join(lacking)}; copy all shards")
    fix = "copy config.json and weights from the same model"
    if extra := tensors.keys() - shapes.keys():
        raise UserError(f"{folder}: tensors not described by config.json: {_join(extra)}; {fix}")
    for name, shape in shapes.items():
        item = tensors[name]
        if item.shape != shape:
            raise UserError(f"{folder}: {name} has shape {item.shape}, not {shape}; {fix}")
        if item.dtype not in _FLOATING:
            raise UserError(
                f"{folder}: {name} has dtype {item.dtype}, not a float; use the checkpoint "
                "without quantization"
            )


def _join(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _MAX_NAMES
    return ", ".join(ordered[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
