"""A model family as data for the converter, the planner and the loader's checks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

Config = Mapping[str, Any]  # content of a config.json
SIZE_FIELDS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "intermediate_size"),
)


@dataclass(frozen=True)
class Sizes:
    """Dimensions of a network, in the order of SIZE_FIELDS."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    learned_positions: int = 0  # rows of a position table; 0: rotary positions

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def key_width(self) -> int:
        """Width of a token's keys, and of its values."""
        return self.head_dim * self.num_key_value_heads


class Spec(NamedTuple):
    """A tensor: its published name, its name in transformers' class, and its shape."""

    upstream: str
    transformers: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A family of checkpoints; weft_rl.families.FAMILIES lists them."""

    name: str
    model_types: tuple[str, ...]  # in a published config.json; exports use the first
    transformers_type: str  # model_type in transformers' layout
    network: str  # "module:Class" of the model; its module imports torch
    sizes: Callable[[Config], Sizes]
    tensors: Callable[[Sizes], list[Spec]]
    # config.json of each layout, without the fields that name the family
    to_transformers: Callable[[Config], dict[str, Any]]
    to_upstream: Callable[[Config], dict[str, Any]]
    published: Mapping[str, str]  # Hub id by the name that model= accepts
    published_sizes: Sizes
    mask_token: str
    end_of_turn: str
    end_of_turn_id: int  # for a config.json without eot_token_id, as the published ones
    remote_code: Mapping[str, str]  # auto_map of an export for upstream's users; never run here
    chat_template: str | None = None  # replaces a published one that opens an unrequested turn
    tokenizer: str | None = None  # transformers' class that replaces a published remote one
    needs_generation_config: bool = False  # whether upstream's loader requires the file

    def count(self, sizes: Sizes) -> int:
        """Count the parameters of a network."""
        return sum(prod(spec.shape) for spec in self.tensors(sizes))
