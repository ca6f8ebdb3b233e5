"""Model family by name. A further family is a file beside this one and a line here."""

import json
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.families.dream import DREAM
from weft_rl.families.family import Family
from weft_rl.families.llada import LLADA

FAMILIES = (LLADA, DREAM)
# Hub id by the name that model= takes.
PUBLISHED = {name: place for family in FAMILIES for name, place in family.published.items()}


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises UserError when it cannot be read or is no JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a model's folder"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); copy it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a JSON object; copy it again")
    return config


def family_of(config: dict[str, Any], place: Path) -> tuple[Family, bool]:
    """The family of a configuration, and whether it is in transformers' own layout.

    Raises UserError for a model_type that no family has."""
    kind = config.get("model_type")
    for family in FAMILIES:
        if kind in family.model_types:
            return family, False
        # a causal Llama or Qwen2 has the same names and is another model
        if kind == family.plain_type and config.get("is_causal") is False:
            return family, True
    known = ", ".join(kind for family in FAMILIES for kind in family.model_types)
    raise UserError(
        f"{place}: model_type={kind!r}: no such family; there are {known}, and llama or qwen2 "
        "with is_causal=false"
    )
