"""Safetensors files as names, shapes and byte ranges: checked by their headers, copied by bytes.

The format: 8 bytes of header length, little-endian; a JSON header of name -> dtype, shape and range
of bytes; then the tensors' bytes. Nothing is executed, and no tensor is ever decoded here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_json, regular_size

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Bytes an element takes, by the format's names.
DTYPES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
# Of weights as they are published: whole numbers would be scaled ones, whose scales are elsewhere.
_FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
# The format's own limit; a longer header is a damaged file.
_LONGEST_HEADER = 100_000_000
# Weights in other formats.
_OTHERS = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")
# What Git leaves in a large file's place until it is fetched.
_POINTER = b"version "
# Names in a message about missing tensors: one layer's worth, not thousands.
_NAMED = 4


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where its bytes are and what they mean."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # from the file's beginning
    length: int


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file by name.

    Raises UserError for a file that is cut short, or whose header does not fit its length."""
    try:
        size = regular_size(path, "download it again")
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if first == _POINTER:
                raise UserError(f"{path}: is a pointer to Git LFS; fetch the file (git lfs pull)")
            if len(first) < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise UserError(f"{path}: is cut short in its header; download it again")
            header = json.loads(file.read(length))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); download it again") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: is no safetensors file ({error}); download it again") from error
    stored = {
        name: _stored(path, name, entry, 8 + length)
        for name, entry in _entries(path, header).items()
        if name != "__metadata__"
    }
    end = max((item.start + item.length for item in stored.values()), default=8 + length)
    if end > size:
        raise UserError(
            f"{path}: is cut short, {size} bytes of {end}; download it again (all of it)"
        )
    return stored


def _entries(path: Path, header: Any) -> Mapping[str, Any]:
    if not isinstance(header, dict):
        raise UserError(f"{path}: is no safetensors file; download it again")
    return header


def _stored(path: Path, name: str, entry: Any, base: int) -> Stored:
    """One entry of a header, its range checked against its shape."""
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
        first, last = (int(offset) for offset in entry["data_offsets"])
        length = DTYPES[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {name}: its entry cannot be read; download it again") from error
    for size in shape:
        length *= size
    if first < 0 or min(shape, default=0) < 0 or last - first != length:
        raise UserError(f"{path}: {name}: {last - first} bytes for shape {shape} of {dtype}")
    return Stored(path, dtype, shape, base + first, length)


def read_folder(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint's folder, from its index or its single file.

    Raises UserError for an index that names a file outside of the folder, a missing shard, a
    tensor that is not in its shard, and one that is in a shard but not in the index."""
    index = folder / INDEX
    if not index.exists():
        if not (folder / SINGLE).exists():
            raise UserError(f"{folder}: holds neither {SINGLE} nor {INDEX}; {_instead(folder)}")
        return read_header(folder / SINGLE)
    files = _weight_map(index)
    tensors: dict[str, Stored] = {}
    for name in sorted(set(files.values())):
        shard = read_header(folder / name)
        wanted = {tensor for tensor, file in files.items() if file == name}
        for problem, names in (
            ("is without", wanted - shard.keys()),
            ("holds, unknown to the index,", shard.keys() - wanted),
        ):
            if names:
                raise UserError(f"{folder / name}: {problem} {_few(names)}; download it again")
        tensors |= shard
    return tensors


def _instead(folder: Path) -> str:
    """What a folder without the weights' files has instead, and the cure."""
    others = sorted(path.name for kind in _OTHERS for path in folder.glob(kind) if path.is_file())
    if not others:
        return "name a model's folder"
    return (
        f"{_few(others)} cannot be read here (pickles may run code); save the weights as "
        "safetensors, with safetensors.torch.save_file or transformers' save_pretrained"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file from an index, whose files must lie beside it."""
    try:
        entries = dict(read_json(index, "download it again")["weight_map"])
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index}: cannot be read ({error!r}); download it again") from error
    for name in entries.values():
        # the name is joined to the folder: `..` or an absolute one would read anything
        if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
            raise UserError(f"{index}: names the file {name!r}, which is not beside it; not read")
    return entries


def check_tensors(
    place: Path | str, found: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise UserError naming tensors that are missing, too many, misshaped, or no floats."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing:
        raise UserError(f"{place}: tensors are missing: {_few(missing)}; copy all shards")
    if extra:
        raise UserError(
            f"{place}: tensors that the model does not have: {_few(extra)}; "
            "is config.json of the same model?"
        )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise UserError(
                f"{place}: {name} has shape {found[name].shape}, not {shape} as config.json says; "
                "is it of the same model?"
            )
        if found[name].dtype not in _FLOATING:
            raise UserError(
                f"{place}: {name} holds {found[name].dtype}, no floating-point numbers; take the "
                "checkpoint that is not quantized"
            )


def _few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def header_bytes(tensors: Mapping[str, tuple[str, Sequence[int], int]]) -> bytes:
    """The header of a file that holds these tensors, dtype, shape and bytes, in this order."""
    # transformers asks the metadata which framework wrote the file
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape, length) in tensors.items():
        end = start + length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors' bytes begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text
