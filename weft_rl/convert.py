"""`convert`: convert a checkpoint to another layout with bit-identical weights.

`upstream` is the published layout. `transformers` loads without this package as Llama (LLaDA) or
Qwen2 (Dream), both with `is_causal` off. Weights pass through a fixed-size buffer."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import split_state_dict_into_shards_factory

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.checkpoints.lora_merge import Update, chain, merge, read_tensor, read_updates
from weft_rl.checkpoints.safetensors_index import INDEX, SINGLE, Stored, check_tensors, read_folder
from weft_rl.checkpoints.tokenizer_files import (
    Layout,
    copy_tokenizer,
    write_config,
    write_generation_config,
)
from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option
from weft_rl.config.load import parse_options
from weft_rl.errors import UserError
from weft_rl.families import family_of, read_config
from weft_rl.families.a2d import ADDED_MASK
from weft_rl.runs.atomic_io import atomic_rename, write_json
from weft_rl.runs.checksums import SUMS, verify_checksums

_GIB = 2**30
_BUFFER = 4 * 2**20  # bytes


@dataclass(frozen=True)
class ConvertConfig(Block):
    """Options of `convert`."""

    source: str = field(
        metadata=about(
            "checkpoint folder or Hub id, in either layout; an adapter is merged into its base"
        )
    )
    out: str = field(metadata=about("new folder"))
    to: Literal["upstream", "transformers"] = option("transformers", "layout of the new folder")
    shard_gib: float = option(5.0, "largest file in GiB, unless one tensor is larger", above=0)
    verify: bool = option(True, f"verify the source's {SUMS} before copying, if it exists")


@dataclass(frozen=True)
class Source:
    """A tensor to write: stored bytes, updates to add, and layout-independent name."""

    name: str  # upstream's
    item: Stored
    updates: list[Update]


class Conversion(NamedTuple):
    """Counts of tensors, bytes and files, and a weight digest independent of layout and shards."""

    tensors: int
    length: int
    files: int
    digest: str


def convert(
    source: Path, out: Path, to: Layout, shard_bytes: int, *, verify: bool = True
) -> Conversion:
    """Write `source` atomically to the new folder `out` in another layout.

    shard_bytes: largest file, unless one tensor is larger. Raises UserError for an incomplete,
    damaged or unknown source, and for an existing `out`."""
    base, adapters = chain(source)
    config = read_config(base)
    family, is_transformers = family_of(config, base)
    if adapters and is_transformers:
        raise UserError(f"{source}: its base is in transformers' layout; convert the base first")
    if ADDED_MASK in config:
        raise UserError(f"{base}: has no mask token; adapt it with stage a2d, which adds one")
    sizes = family.sizes(config)
    specs = family.tensors(sizes)
    if any("embed_positions" in spec.transformers for spec in specs):
        raise UserError(
            f"{base}: learned positions exist in neither layout; load the folder unconverted"
        )
    old = {spec: spec.transformers if is_transformers else spec.upstream for spec in specs}
    stored = read_folder(base)
    if sizes.tied:  # some files repeat the tied head
        stored.pop(family.vocabulary(sizes)[1].upstream, None)
    check_tensors(base, stored, {old[spec]: spec.shape for spec in specs})
    updates = read_updates(adapters, {spec.upstream: spec.shape for spec in specs})
    if out.exists():
        raise UserError(f"out={out}: exists; choose another out")
    for folder in (base, *adapters) if verify else ():
        verify_checksums(folder)
    sources = {
        spec.transformers if to == "transformers" else spec.upstream: Source(
            spec.upstream, stored[old[spec]], updates.get(spec.upstream, [])
        )
        for spec in specs
    }
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        conversion = _write_weights(scratch, sources, shard_bytes)
        write_config(scratch, family, config, to)
        write_generation_config(base, scratch, family, to)
        copy_tokenizer([base, *adapters], scratch, family, to)
        atomic_rename(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return conversion


def _write_weights(folder: Path, sources: Mapping[str, Source], shard_bytes: int) -> Conversion:
    split = split_state_dict_into_shards_factory(
        dict(sources),
        get_storage_size=lambda source: source.item.length,
        filename_pattern=SINGLE.replace(".", "{suffix}."),
        max_shard_size=shard_bytes,
    )
    digests: dict[str, str] = {}
    sums = [
        f"{_write_shard(folder / file, {name: sources[name] for name in names}, digests)}  {file}\n"
        for file, names in split.filename_to_tensors.items()
    ]
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index)
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")
    digest = sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode())
    total = sum(source.item.length for source in sources.values())
    return Conversion(len(sources), total, len(sums), digest.hexdigest())


def _write_shard(path: Path, sources: Mapping[str, Source], digests: dict[str, str]) -> str:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, source in sources.items():
        item, end = source.item, start + source.item.length
        header[name] = {"dtype": item.dtype, "shape": item.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors
    with path.open("wb") as file:
        prefix = len(text).to_bytes(8, "little") + text
        file.write(prefix)
        digest = sha256(prefix)
        for source in sources.values():
            tensor_digest = sha256(f"{source.item.dtype} {source.item.shape} ".encode())
            for chunk in _chunks(source):
                file.write(chunk)
                digest.update(chunk)
                tensor_digest.update(chunk)
            digests[source.name] = tensor_digest.hexdigest()
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _chunks(source: Source) -> Iterator[bytes]:
    item = source.item
    if source.updates:
        import torch  # keeps --help fast

        tensor = read_tensor(item)
        merged = merge(tensor, source.updates).to(tensor.dtype)
        yield merged.view(torch.uint8).numpy().tobytes()  # NumPy has no bfloat16
        return
    with item.file.open("rb") as file:
        file.seek(item.start)
        for begin in range(0, item.length, _BUFFER):
            chunk = file.read(min(_BUFFER, item.length - begin))
            if not chunk:
                raise UserError(f"{item.file}: shrank while it was read; copy it again")
            yield chunk


def main(argv: Sequence[str]) -> int:
    """Convert the checkpoint in the arguments; returns the exit status."""
    options = parse_options(
        ConvertConfig,
        argv,
        command="weft_rl.convert",
        description="Convert a checkpoint to another layout, bit by bit the same weights.",
        positional="source",
    )
    source, out = resolve_checkpoint(options.source, option="source"), Path(options.out)
    shard_bytes = int(options.shard_gib * _GIB)
    conversion = convert(source, out, options.to, shard_bytes, verify=options.verify)
    sys.stdout.write(
        f"{out}: {conversion.tensors} tensors, {conversion.length} bytes in {conversion.files} "
        f"files, sha256 of the weights {conversion.digest}\n"
    )
    from weft_rl.models.tokenizer import load_tokenizer  # keeps --help fast

    try:
        load_tokenizer(str(out))
    except UserError as error:
        sys.stderr.write(f"weft_rl.convert: warning: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.convert", main, sys.argv[1:]))
