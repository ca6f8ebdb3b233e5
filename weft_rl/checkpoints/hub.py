"""From what names a model to a folder of this machine."""

import sys
from pathlib import Path

from huggingface_hub import constants, logging, snapshot_download

from weft_rl.errors import UserError
from weft_rl.runs.folder import checkpoint_of

# What is fetched of a hub's repository: weights and descriptions, never code or pickles.
_FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def local_folder(place: str, *, weights: bool = True) -> Path:
    """The folder that a name stands for; a hub id is fetched first, with its weights or without.

    Raises UserError when there is no such folder and the hub does not have it either."""
    if Path(place).is_dir():
        return Path(checkpoint_of(place))
    fetched = _FETCHED if weights else [name for name in _FETCHED if name != "*.safetensors"]
    try:
        return Path(snapshot_download(place, allow_patterns=fetched))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model={place}: no such folder, and the hub does not give it ({reason})"
        ) from error


def announce_download(name: str) -> None:
    """Say on a terminal that the hub is asked for a data set: without a network `datasets` tries
    again for some 20 seconds, and says nothing that is of use."""
    logging.set_verbosity_error()  # two lines for each of its tries
    if sys.stderr.isatty() and not constants.HF_HUB_OFFLINE:
        sys.stderr.write(
            f"asking the hub for {name} (with HF_HUB_OFFLINE=1 only what was fetched before) ...\n"
        )
