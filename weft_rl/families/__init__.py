"""Model families as data. To add one, add a module here and an entry in FAMILIES."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.families.base import Family
from weft_rl.families.dream import DREAM
from weft_rl.families.llada import LLADA
from weft_rl.io.safe_files import read_json, require_plausible

# Family field in config.json of transformers' layout, where families can share a class.
FAMILY = "diffusion_family"

FAMILIES: tuple[Family, ...] = (DREAM, LLADA)
PUBLISHED = {name: repo for family in FAMILIES for name, repo in family.published.items()}


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a folder. Raises UserError if it is not a readable JSON object."""
    path = folder / "config.json"
    config = read_json(path, "copy it again" if path.exists() else "name a model's folder")
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a JSON object; copy it again")
    require_plausible(config, path)
    return config


def family_of(config: Mapping[str, Any], place: Path) -> tuple[Family, bool]:
    """Return a config.json's family and whether its layout is transformers'. Raises UserError."""
    model_type, name = config.get("model_type"), config.get(FAMILY)
    # a causal Llama or Qwen2 has the same names but is another model
    transformers_type = model_type if config.get("is_causal") is False else None
    candidates = [
        family
        for family in FAMILIES
        if (model_type in family.model_types or transformers_type == family.transformers_type)
        and name in (None, family.name)
    ]
    if len(candidates) == 1:
        return candidates[0], model_type not in candidates[0].model_types
    problem = f"{place}: model_type={model_type!r}, {FAMILY}={name!r}"
    if candidates:
        names = ", ".join(family.name for family in candidates)
        raise UserError(f'{problem}: one of {names}; set "{FAMILY}" in its config.json')
    known = ", ".join(kind for family in FAMILIES for kind in family.model_types)
    shared = " or ".join(sorted({family.transformers_type for family in FAMILIES}))
    raise UserError(f"{problem}: unknown family; use {known}, or {shared} with is_causal=false")
