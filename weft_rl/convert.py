"""`convert`: a checkpoint from one layout to another, by copying bytes.

`upstream` is the published layout; `transformers` is transformers' own class (Llama for LLaDA,
Qwen2 for Dream, both with `is_causal` off), which loads without this package. Weights go through a
buffer of fixed size, so that memory does not grow with the model, and no bit of them changes.
An adapter's folder is merged on the way: only then is anything computed, one matrix at a time."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

from weft_rl.checkpoints.lora_merge import Update, chain, merged_bytes, updates_of_all
from weft_rl.checkpoints.safetensors_index import (
    INDEX,
    SINGLE,
    Stored,
    check_tensors,
    header_bytes,
    read_folder,
)
from weft_rl.checkpoints.tokenizer_files import copy_companions, tokenizer_problem, write_config
from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option
from weft_rl.config.load import parse_options
from weft_rl.errors import UserError
from weft_rl.families.base import Spec
from weft_rl.families.registry import family_of, read_config
from weft_rl.runs.atomic_io import atomic_rename, write_json
from weft_rl.runs.checksums import SUMS, verify_checksums
from weft_rl.runs.folder import checkpoint_of

_BUFFER = 16 * 2**20  # bytes; larger ones are not faster
_GIB = 2**30


@dataclass(frozen=True)
class ConvertConfig(Block):
    """Options of `convert`."""

    source: str = field(
        metadata=about("the checkpoint's folder, in either layout; an adapter's is merged")
    )
    out: str = field(metadata=about("the new folder"))
    to: Literal["upstream", "transformers"] = option("transformers", "the new folder's layout")
    shard_gib: float = option(5.0, "largest file, unless one tensor is larger", above=0)
    verify: bool = option(True, f"check the source's {SUMS}, where it has one, before copying")


class Job(NamedTuple):
    """A tensor to write: where its bytes are, and what is added to it."""

    spec: Spec
    item: Stored
    added: list[Update]


class Converted(NamedTuple):
    """What was written: tensors, bytes, files, and a digest of the weights that is the same in
    either layout and for any shards."""

    tensors: int
    length: int
    files: int
    digest: str


def main(argv: Sequence[str]) -> int:
    """Convert the checkpoint in the arguments; returns the exit status."""
    about_it = "A checkpoint from one layout to another, bit by bit the same weights."
    options = parse_options(
        ConvertConfig, argv, command="weft_rl.convert", description=about_it, positional="source"
    )
    done = convert(
        Path(checkpoint_of(options.source, "source")),
        Path(options.out),
        options.to,
        int(options.shard_gib * _GIB),
        verify=options.verify,
    )
    sys.stdout.write(
        f"{options.out}: {done.tensors} tensors, {done.length} bytes in {done.files} files, "
        f"sha256 of the weights {done.digest}\n"
    )
    problem = tokenizer_problem(Path(options.out))
    if problem is not None:
        sys.stderr.write(
            f"weft_rl.convert: {options.out}: {problem}; copy the model's own tokenizer files "
            "there\n"
        )
    return 0


def convert(
    source: Path,
    out: Path,
    to: Literal["upstream", "transformers"],
    shard_bytes: int,
    *,
    verify: bool = True,
) -> Converted:
    """Write `source` to the folder `out` in another layout, complete or not at all.

    Raises UserError for a source that is incomplete, damaged or of no known family, and for an
    `out` that is there already."""
    source, adapters = chain(source)
    last = adapters[-1] if adapters else source
    config = read_config(source)
    family, is_plain = family_of(config, source)
    if adapters and is_plain:
        raise UserError(f"{last}: its base is in transformers' own layout; convert that first")
    specs = family.tensors(family.sizes(config))
    if any("embed_positions" in spec.plain for spec in specs):
        raise UserError(
            f"{source}: learned positions have no form in either layout; load the folder as it is"
        )
    stored = read_folder(source)
    check_tensors(source, stored, {_name(spec, is_plain): spec.shape for spec in specs})
    added = updates_of_all(adapters, {spec.upstream: spec.shape for spec in specs})
    if out.exists():
        raise UserError(f"out={out}: is there already; choose another out")
    if verify:
        for folder in (source, *adapters):
            verify_checksums(folder)
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        jobs = [
            Job(spec, stored[_name(spec, is_plain)], added.get(spec.upstream, [])) for spec in specs
        ]
        done = _write(scratch, jobs, to == "transformers", shard_bytes)
        write_config(scratch, family, config, to)
        copy_companions([source, *adapters], scratch, family, to)
        atomic_rename(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return done


def _name(spec: Spec, plain: bool) -> str:
    return spec.plain if plain else spec.upstream


def _write(folder: Path, jobs: list[Job], plain: bool, shard_bytes: int) -> Converted:
    shards: list[list[Job]] = [[]]
    for job in jobs:
        held = sum(other.item.length for other in shards[-1])
        if shards[-1] and held + job.item.length > shard_bytes:
            shards.append([])
        shards[-1].append(job)
    weight_map, sums, digests = {}, [], {}
    for number, shard in enumerate(shards, 1):
        file = SINGLE
        if len(shards) > 1:
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        sums.append(f"{_write_shard(folder / file, shard, plain, digests)}  {file}\n")
        weight_map |= {_name(job.spec, plain): file for job in shard}
    total = sum(job.item.length for job in jobs)
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")
    whole = sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode())
    return Converted(len(jobs), total, len(shards), whole.hexdigest())


def _write_shard(path: Path, shard: list[Job], plain: bool, digests: dict[str, str]) -> str:
    """Copy one file's tensors; returns the file's sum and notes each tensor's."""
    header = header_bytes(
        {_name(spec, plain): (item.dtype, item.shape, item.length) for spec, item, _ in shard}
    )
    whole = sha256(header)
    with path.open("wb") as target:
        target.write(header)
        for spec, item, added in shard:
            own = sha256(f"{item.dtype} {item.shape} ".encode())
            for chunk in [merged_bytes(item, added)] if added else _chunks(item):
                whole.update(chunk)
                own.update(chunk)
                target.write(chunk)
            digests[spec.upstream] = own.hexdigest()
        target.flush()
        os.fsync(target.fileno())
    return whole.hexdigest()


def _chunks(item: Stored) -> Iterator[bytes]:
    left = item.length
    with item.file.open("rb") as source:
        source.seek(item.start)
        while left:
            chunk = source.read(min(left, _BUFFER))
            if not chunk:
                raise UserError(f"{item.file}: became shorter while it was read; copy it again")
            left -= len(chunk)
            yield chunk


if __name__ == "__main__":
    sys.exit(execute("weft_rl.convert", main, sys.argv[1:]))
