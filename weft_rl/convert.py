"""`convert`: convert a checkpoint to another layout with bit-identical weights.

`upstream` is the published layout. `transformers` loads without this package as Llama (LLaDA) or
Qwen2 (Dream), both with `is_causal` off."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from weft_rl.checkpoints.convert import convert
from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option
from weft_rl.config.load import parse_options
from weft_rl.errors import UserError
from weft_rl.runs.checksums import SUMS
from weft_rl.runs.folder import checkpoint_of

_GIB = 2**30


@dataclass(frozen=True)
class ConvertConfig(Block):
    """Options of `convert`."""

    source: str = field(
        metadata=about("checkpoint folder in either layout; an adapter is merged into its base")
    )
    out: str = field(metadata=about("new folder"))
    to: Literal["upstream", "transformers"] = option("transformers", "layout of the new folder")
    shard_gib: float = option(5.0, "largest file in GiB, unless one tensor is larger", above=0)
    verify: bool = option(True, f"verify the source's {SUMS} before copying, if it exists")


def main(argv: Sequence[str]) -> int:
    """Convert the checkpoint in the arguments; returns the exit status."""
    options = parse_options(
        ConvertConfig,
        argv,
        command="weft_rl.convert",
        description="Convert a checkpoint to another layout, bit by bit the same weights.",
        positional="source",
    )
    source, out = Path(checkpoint_of(options.source, "source")), Path(options.out)
    shard_bytes = int(options.shard_gib * _GIB)
    conversion = convert(source, out, options.to, shard_bytes, verify=options.verify)
    sys.stdout.write(
        f"{out}: {conversion.tensors} tensors, {conversion.length} bytes in {conversion.files} "
        f"files, sha256 of the weights {conversion.digest}\n"
    )
    from weft_rl.models.loading import load_tokenizer  # keeps --help fast

    try:
        load_tokenizer(str(out))
    except UserError as error:
        sys.stderr.write(f"weft_rl.convert: warning: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.convert", main, sys.argv[1:]))
