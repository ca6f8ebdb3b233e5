"""Files next to converted weights: configuration, generation settings, tokenizer."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from weft_rl.families import FAMILY, read_config
from weft_rl.families.base import Config, Family
from weft_rl.families.fields import metadata
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.folder import read_json

Layout = Literal["upstream", "transformers"]

GENERATION = "generation_config.json"
_TOKENIZER = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
# All other tokenizer files; the remaining files belong to a run or are code.
_TOKENS = (
    *("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)
TOKENIZER_FILES = (*_TOKENS, _TOKENIZER, _TEMPLATE)


def write_config(folder: Path, family: Family, config: Config, to: Layout) -> None:
    """Write the config.json of a layout; upstream's names the repository of its code."""
    known = metadata(config)
    if to == "transformers":
        fields = {**family.to_transformers(config), FAMILY: family.name}
        fields["model_type"] = family.transformers_type
    else:
        code = known.get("auto_map") or {}
        is_remote = code and all(isinstance(name, str) and "--" in name for name in code.values())
        fields = {**family.to_upstream(config), "model_type": family.model_types[0]}
        code = code if is_remote else dict(family.remote_code)
        fields |= {"auto_map": code} if code else {}
    if "dtype" in known:  # upstream's code reads the older name
        fields["dtype" if to == "transformers" else "torch_dtype"] = known["dtype"]
    write_json(folder / "config.json", fields)


def copy_tokenizer(sources: Sequence[Path], folder: Path, family: Family, to: Layout) -> None:
    """Copy the last tokenizer of a model and its adapters, in a form that loads without code.

    A remote class becomes transformers' class. transformers' layout gets the family's mask token
    and chat template. Raises UserError for a damaged tokenizer_config.json."""
    names = (*_TOKENS, _TOKENIZER)
    holders = [source for source in sources if any((source / name).exists() for name in names)]
    if not holders:
        return
    source = holders[-1]
    template = family.chat_template if to == "transformers" else None
    for name in _TOKENS if template else (*_TOKENS, _TEMPLATE):
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
    if template is None and (source / _TEMPLATE).exists():
        # transformers < 4.50 reads the template from this file only
        template = (source / _TEMPLATE).read_text(encoding="utf-8")
    options |= {"chat_template": template} if template else {}
    write_json(folder / _TOKENIZER, _for_transformers_4(options))


def _for_transformers_4(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the class and the special token list that only transformers 5 reads."""
    options = {name: value for name, value in options.items() if name != "backend"}
    if options.get("tokenizer_class") == "TokenizersBackend":
        options["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(options.get("extra_special_tokens"), list):
        tokens = [*(options.get("additional_special_tokens") or [])]
        tokens += [item for item in options.pop("extra_special_tokens") if item not in tokens]
        options["additional_special_tokens"] = tokens
    return options


def write_generation_config(source: Path, folder: Path, family: Family, to: Layout) -> None:
    """Copy the source's generation settings, with those that upstream's loader requires."""
    settings: dict[str, Any] = read_json(source / GENERATION, {})
    if to == "upstream" and family.needs_generation_config:
        fields = family.to_upstream(read_config(source))
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id")
        ids = {name: fields[name] for name in names if fields.get(name) is not None}
        settings = ids | settings
    if settings:
        write_json(folder / GENERATION, settings)
