"""What lies beside converted weights: the configuration and the tokenizer's files."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from weft_rl.errors import UserError
from weft_rl.families.base import Config, Family
from weft_rl.families.fields import described
from weft_rl.families.registry import FAMILY, family_of, read_config
from weft_rl.families.tokenizer_check import misfit
from weft_rl.runs.folder import read_json

Layout = Literal["upstream", "transformers"]

_GENERATION = "generation_config.json"
_TOKENIZER = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
# All other files of tokenizers. Anything else in a folder is of a run, or code.
_TOKENS = (
    *("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)


def write_config(folder: Path, family: Family, config: Config, to: Layout) -> None:
    """The new layout's config.json.

    Upstream's own names its code: the source's where that names a repository, otherwise the
    family's, since files beside the source do not go along."""
    if to == "transformers":
        # its model_type may be another family's as well
        form = {"model_type": family.plain_type, FAMILY: family.name}
        own = family.to_plain(config) | form
    else:
        own = family.to_upstream(config) | {"model_type": family.model_types[0]}
        own.pop(FAMILY, None)
    if "dtype" in described(config):
        # upstream's code reads the older name
        own["dtype" if to == "transformers" else "torch_dtype"] = described(config)["dtype"]
    if to == "upstream":
        code = config.get("auto_map")
        own["auto_map"] = code if _names_repositories(code) else dict(family.remote_code)
    _write(folder / "config.json", own)


def _names_repositories(code: Any) -> bool:
    """Whether an auto_map is there and holds nothing but `repository--module.Class`."""
    return (
        isinstance(code, Mapping)
        and bool(code)
        and all(isinstance(name, str) and "--" in name for name in code.values())
    )


def copy_companions(chain: Sequence[Path], folder: Path, family: Family, to: Layout) -> None:
    """The first folder's generation settings, and the last tokenizer in a model and its adapters.

    The tokenizer loads without code: one of a class of its own gets the class that the files are
    of. Where transformers' class is to read it, it has the family's mask token and chat form.
    Raises UserError for a tokenizer_config.json that cannot be read."""
    _write_generation(chain[0], folder, family, to)
    names = (*_TOKENS, _TOKENIZER)
    holders = [place for place in chain if any((place / name).exists() for name in names)]
    if not holders:
        return
    source = holders[-1]
    own_template = to == "transformers" and family.chat_template is not None
    for name in _TOKENS if own_template else (*_TOKENS, _TEMPLATE):
        if (source / name).exists():
            shutil.copy(source / name, folder)
    if not (source / _TOKENIZER).exists():
        return
    options: dict[str, Any] = read_json(source / _TOKENIZER, {})
    if family.tokenizer is not None:
        options.pop("auto_map", None)
        options["tokenizer_class"] = family.tokenizer
    if to == "transformers":
        options["mask_token"] = options.get("mask_token") or family.mask_token
    if own_template:
        options["chat_template"] = family.chat_template
    elif (source / _TEMPLATE).exists():
        # releases of transformers before 4.50 look for it here alone
        options["chat_template"] = (source / _TEMPLATE).read_text(encoding="utf-8")
    _write(folder / _TOKENIZER, _for_any_release(options))


def _special_tokens(config: Config) -> dict[str, Any]:
    """A configuration's special tokens that a generation_config.json repeats."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id")
    return {name: config[name] for name in names if config.get(name) is not None}


def _for_any_release(options: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's options in the form that transformers 4 and 5 read.

    Release 5 writes a class and a list of special tokens that release 4 does not know."""
    options.pop("backend", None)
    if options.get("tokenizer_class") == "TokenizersBackend":
        options["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = options.get("extra_special_tokens")
    if isinstance(extra, list):
        del options["extra_special_tokens"]
        listed = options.get("additional_special_tokens") or []
        options["additional_special_tokens"] = [*listed, *(t for t in extra if t not in listed)]
    return options


def _write_generation(source: Path, folder: Path, family: Family, to: Layout) -> None:
    """The generation settings of the source; where upstream's loader demands them, new ones."""
    settings: dict[str, Any] = read_json(source / _GENERATION, {})
    if to == "upstream" and family.needs_generation_config:
        settings = _special_tokens(family.to_upstream(read_config(source))) | settings
    if settings:
        _write(folder / _GENERATION, settings)


def tokenizer_problem(folder: Path) -> str | None:
    """Why a converted folder's tokenizer is not its model's, in words; None when it may be.

    Reads the files alone: a tokenizer.model, which needs its library, is taken as it is."""
    config = read_config(folder)
    family, _ = family_of(config, folder)
    try:
        options = read_json(folder / _TOKENIZER, {})
        tokens = _tokens(folder, options)
        if not tokens:
            return None if (folder / "tokenizer.model").exists() else "there is no tokenizer"
        options = read_json(folder / "special_tokens_map.json", {}) | options
        named = {}
        for name in ("eos_token", "bos_token", "pad_token"):
            token = options.get(name)
            named[name] = token.get("content") if isinstance(token, Mapping) else token
        return misfit(config, family, tokens, named)
    except (UserError, AttributeError, KeyError, TypeError, ValueError):
        return "its tokenizer's files cannot be read"


def _tokens(folder: Path, options: Mapping[str, Any]) -> dict[str, int]:
    """Ids by text, from the forms that transformers writes them in."""
    whole = read_json(folder / "tokenizer.json", {})
    words = whole.get("model", {}).get("vocab") or read_json(folder / "vocab.json", {})
    if not isinstance(words, Mapping):  # of texts with their scores
        words = {text: number for number, (text, *_) in enumerate(words)}
    tokens = {**words, **read_json(folder / "added_tokens.json", {})}
    tokens |= {entry["content"]: entry["id"] for entry in whole.get("added_tokens", [])}
    decoder = options.get("added_tokens_decoder", {})
    tokens |= {entry["content"]: int(number) for number, entry in decoder.items()}
    return {text: int(number) for text, number in tokens.items()}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
