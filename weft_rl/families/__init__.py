"""Model families as data. To add one, add a module here and an entry in FAMILIES."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.families.a2d import A2D, completed, is_autoregressive
from weft_rl.families.base import Family
from weft_rl.families.dream import DREAM
from weft_rl.families.llada import LLADA
from weft_rl.io.safe_files import read_json, require_plausible

# Family field in config.json of transformers' layout, where families can share a class.
FAMILY = "diffusion_family"

FAMILIES: tuple[Family, ...] = (DREAM, LLADA, *A2D)
PUBLISHED = {name: repo for family in FAMILIES for name, repo in family.published.items()}
# Models that stage a2d adapts before any other stage.
AUTOREGRESSIVE = {name: repo for family in FAMILIES for name, repo in family.autoregressive.items()}


def read_config(folder: Path, *, adapt: bool = False) -> dict[str, Any]:
    """Read the config.json of a folder, with the ids that A2D models keep in their tokenizer.

    adapt: turn an autoregressive model's into that of its A2D family. Raises UserError if it is
    not a readable JSON object."""
    path = folder / "config.json"
    config = read_json(path, "copy it again" if path.exists() else "name a model's folder")
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a JSON object; copy it again")
    require_plausible(config, path)
    is_new = adapt and is_autoregressive(config)
    if is_new:
        config |= {"model_type": f"a2d-{config['model_type']}", "is_causal": False}
    if any(family_in(family, config) for family in A2D):
        return completed(config, folder, is_new=is_new)
    return config


def family_in(family: Family, config: Mapping[str, Any]) -> bool:
    """Whether a config.json may be of a family, in either layout."""
    model_type, name = config.get("model_type"), config.get(FAMILY)
    if model_type in family.model_types:
        return name in (None, family.name)
    # a causal Llama or Qwen has the same names but is another model
    if model_type != family.transformers_type or config.get("is_causal") is not False:
        return False
    # an export names its family; other bidirectional models are as A2D's
    return family in A2D if name is None else name == family.name


def family_of(config: Mapping[str, Any], place: Path) -> tuple[Family, bool]:
    """Return a config.json's family and whether its layout is transformers'. Raises UserError."""
    model_type, name = config.get("model_type"), config.get(FAMILY)
    for family in FAMILIES:
        if family_in(family, config):
            return family, model_type not in family.model_types
    if is_autoregressive(config):
        raise UserError(
            f"{place}: model_type={model_type!r}: is autoregressive; adapt it with stage a2d "
            f"(weft-rl run stages=[a2d] model={place} out=RUN, then model=RUN), or set "
            "is_causal=false in its config.json if it is not causal"
        )
    known = ", ".join(kind for family in FAMILIES for kind in family.model_types)
    shared = ", ".join(sorted({family.transformers_type for family in FAMILIES}))
    code = ", whose code is in its folder and never run" if config.get("auto_map") else ""
    raise UserError(
        f"{place}: model_type={model_type!r}, {FAMILY}={name!r}: unknown family{code}; use "
        f"{known}, or one of {shared} with is_causal=false"
    )
