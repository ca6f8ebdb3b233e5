"""`push`: upload a model with tokenizer and model card to the Hub."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from weft_rl.checkpoints.hub import require_token, upload
from weft_rl.checkpoints.lora_merge import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    adapter_base,
    require_hub_base,
)
from weft_rl.checkpoints.model_card import CARD, folder_facts, is_written, make_card
from weft_rl.checkpoints.safetensors_index import INDEX, read_folder, read_header
from weft_rl.checkpoints.tokenizer_files import GENERATION, TOKENIZER_FILES
from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option, require
from weft_rl.config.load import parse_options
from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.report.run_card import run_facts
from weft_rl.runs.atomic_io import atomic_rename
from weft_rl.runs.checksums import SUMS, verify_checksums
from weft_rl.runs.folder import checkpoint_of, run_of

_SHARD_BYTES = 5 * 2**30  # the Hub's usual file size


@dataclass(frozen=True)
class PushConfig(Block):
    """Options of `push`."""

    source: str = field(metadata=about("run directory, stage, checkpoint or model folder"))
    repo: str = field(metadata=about("Hub repository, OWNER/NAME"))
    out: str | None = option(
        None, "new folder for the files; null: RUN-STAGE-hub next to the run, or FOLDER-hub"
    )
    merged: bool = option(False, "merge an adapter into its base; false: the adapter as it is")
    private: bool = option(False, "create a private repository; false: the owner's default")
    dry_run: bool = option(False, "write the folder without uploading it")

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            validate_repo_id(self.repo)
            fits = "/" in self.repo
        except HFValidationError:
            fits = False
        require(fits, "repo", self.repo, "must be OWNER/NAME of letters, digits, -, _ and .")


def prepare(source: Path, out: Path | None, repo: str, *, merged: bool = False) -> Path:
    """Write weights, tokenizer and model card to a new folder and return it.

    source: a checkpoint of a run, which gives the card, or a model folder, which keeps its
    README.md. out: None: a name beside the run or folder; a folder with a card is used as it is.
    merged: adapters are merged into their base. Raises UserError for a folder without weights, an
    adapter on a local base, and an existing `out`."""
    names, run = model_files(source), run_of(str(source))
    adapter = (source / ADAPTER).exists() and not merged
    if adapter:
        require_hub_base(adapter_base(source), "merged=false", "use merged=true")
    merges = merged and (source / ADAPTER).exists()
    has_card = run is None and is_written(source / CARD)
    if has_card and out is None and not merges:
        return source
    place = source.resolve() if run is None else run.with_name(f"{run.name}-{source.parent.name}")
    out = out or place.with_name(f"{place.name}-hub")
    if out.exists():
        raise UserError(f"out={out}: exists; push that folder, or choose another out")
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if merges:
            convert(source, scratch, "upstream", _SHARD_BYTES)
        else:
            verify_checksums(source)
            scratch.mkdir(parents=True)
            for name in names:
                shutil.copy(source / name, scratch)
        if has_card:
            shutil.copy(source / CARD, scratch)
        else:
            facts = folder_facts if run is None else run_facts
            make_card(facts(source, repo, adapter=adapter)).save(scratch / CARD)
        atomic_rename(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out


def model_files(folder: Path) -> list[str]:
    """Return the names of weights, configuration and tokenizer in a folder.

    Raises UserError for missing or damaged weights."""
    if not folder.is_dir():
        raise UserError(f"source={folder}: no such folder; name a run, checkpoint or model folder")
    if (folder / ADAPTER).exists():
        read_header(folder / ADAPTER_WEIGHTS)
        weights = {ADAPTER, ADAPTER_WEIGHTS}
    else:
        weights = {item.file.name for item in read_folder(folder).values()}
        weights |= {"config.json", GENERATION, INDEX}
    return sorted(name for name in {*weights, *TOKENIZER_FILES} if (folder / name).exists())


def main(argv: Sequence[str]) -> int:
    """Write the files of a model and upload them; returns the exit status."""
    options = parse_options(
        PushConfig,
        argv,
        command="weft_rl.push",
        description="Upload a model with its tokenizer and a model card to the Hub.",
        positional="source",
    )
    source = Path(checkpoint_of(options.source, "source"))
    if not options.dry_run:
        require_token(options.repo)
    out = None if options.out is None else Path(options.out)
    folder = prepare(source, out, options.repo, merged=options.merged)
    names = [name for name in (*model_files(folder), CARD, SUMS) if (folder / name).exists()]
    done = f"{folder}: {len(names)} files for {options.repo}, not uploaded (dry_run=true)"
    if not options.dry_run:
        try:
            address = upload(folder, names, options.repo, private=options.private)
        except UserError as error:
            raise UserError(f"{error}; the files are in {folder}") from error
        done = f"{address}: {len(names)} files of {folder}"
    sys.stdout.write(f"{done}\n")
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.push", main, sys.argv[1:]))
