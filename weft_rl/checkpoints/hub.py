"""Resolution of model and data set names to local folders, with Hub downloads."""

import sys
from pathlib import Path

from huggingface_hub import constants, logging, snapshot_download

from weft_rl.errors import UserError
from weft_rl.runs.folder import checkpoint_of

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # never code or pickles


def resolve_checkpoint(place: str, *, weights: bool = True) -> Path:
    """Return the folder of a path, run or Hub id (downloaded, optionally without weights).

    Raises UserError if it is unavailable."""
    if Path(place).is_dir():
        return Path(checkpoint_of(place))
    patterns = [name for name in _PATTERNS if weights or name != "*.safetensors"]
    try:
        return Path(snapshot_download(place, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model={place}: neither a folder nor available on the Hub ({reason})"
        ) from error


def announce_download(name: str) -> None:
    """Announce on a terminal that `datasets` asks the Hub: offline it retries silently for 20 s."""
    logging.set_verbosity_error()  # avoids two lines per retry
    if sys.stderr.isatty() and not constants.HF_HUB_OFFLINE:
        sys.stderr.write(
            f"asking the Hub for {name} (HF_HUB_OFFLINE=1 uses cached files only) ...\n"
        )
