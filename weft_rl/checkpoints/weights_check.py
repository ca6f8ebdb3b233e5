"""What is wrong with a model's folder, told from its config.json and its files' headers."""

from pathlib import Path

from weft_rl.checkpoints.safetensors_index import check_tensors, read_folder
from weft_rl.errors import UserError
from weft_rl.families.registry import family_of, read_config


def check_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a folder's tensors by name, which are all there; reads headers only.

    Raises UserError naming what is missing, extra, misshaped or cut short, and for transformers'
    own layout, which is to be converted first."""
    config = read_config(folder)
    family, is_plain = family_of(config, folder)
    if is_plain:
        raise UserError(
            f"model={folder}: is in transformers' own layout; convert it: weft-rl convert "
            f"{folder} out=... to=upstream"
        )
    shapes = {spec.upstream: spec.shape for spec in family.tensors(family.sizes(config))}
    check_tensors(folder, read_folder(folder), shapes)
    return shapes
