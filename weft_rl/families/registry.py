"""The model families. To add one: a file beside this one, and an entry in FAMILIES."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.families.base import Family
from weft_rl.families.dream import DREAM
from weft_rl.families.llada import LLADA
from weft_rl.io.safe_files import read_json, require_plausible

# Field of a config.json in transformers' own layout, whose model_type is its class's: the family.
FAMILY = "diffusion_family"

FAMILIES: tuple[Family, ...] = (DREAM, LLADA)
# Hub id by the name that model= takes.
PUBLISHED = {name: place for family in FAMILIES for name, place in family.published.items()}


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises UserError when it cannot be read or is no JSON object."""
    path = folder / "config.json"
    cure = "copy it again" if path.exists() else "name a model's folder"
    config = read_json(path, cure)
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a JSON object; copy it again")
    require_plausible(config, path)
    return config


def family_of(config: Mapping[str, Any], place: Path) -> tuple[Family, bool]:
    """The family of a configuration, and whether it is in transformers' own layout.

    Raises UserError for a model_type that no family has, and for one that several have where the
    configuration does not name the family."""
    kind, named = config.get("model_type"), config.get(FAMILY)
    # a causal Llama or Qwen2 has the same names and is another model
    plain = kind if config.get("is_causal") is False else None
    fitting = [
        family
        for family in FAMILIES
        if (kind in family.model_types or plain == family.plain_type)
        and named in (None, family.name)
    ]
    if len(fitting) == 1:
        return fitting[0], kind not in fitting[0].model_types
    if fitting:
        names = ", ".join(family.name for family in fitting)
        raise UserError(
            f"{place}: model_type={kind!r} may be any of {names}; put its name into its "
            f'config.json as "{FAMILY}"'
        )
    known = ", ".join(kind for family in FAMILIES for kind in family.model_types)
    plain_types = " or ".join(sorted({family.plain_type for family in FAMILIES}))
    raise UserError(
        f"{place}: model_type={kind!r}{'' if named is None else f' of {FAMILY}={named!r}'}: no "
        f"such family; there are {known}, and {plain_types} with is_causal=false"
    )
