"""A model family as data: what the converter, the plan and the loader's checks need of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from weft_rl.errors import UserError

Config = Mapping[str, Any]  # the content of a config.json
# Far above any network's. A damaged number would have the names of all its tensors made first.
_MOST_LAYERS = 1000


@dataclass(frozen=True)
class Sizes:
    """A network's dimensions. Raises UserError for more layers than any network has."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    learned_positions: int = 0  # rows of a position table; 0: rotary positions

    def __post_init__(self) -> None:
        if self.num_hidden_layers > _MOST_LAYERS:
            raise UserError(
                f"config.json: {self.num_hidden_layers} layers: must be at most {_MOST_LAYERS}; "
                "copy the published file"
            )

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def key_width(self) -> int:
        """Width of a token's keys, and of its values."""
        return self.head_dim * self.num_key_value_heads


class Spec(NamedTuple):
    """A tensor: its published name, its name in transformers' own class, and its shape."""

    upstream: str
    plain: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A family of checkpoints, found by weft_rl.families.registry."""

    name: str
    model_types: tuple[str, ...]  # in a published config.json, and first of all in ours
    plain_type: str  # model_type in transformers' own layout
    network: str  # "module:Class" of the model, imported where torch is wanted
    sizes: Callable[[Config], Sizes]
    tensors: Callable[[Sizes], list[Spec]]
    # each layout's config.json, less what tells of whom it is
    to_plain: Callable[[Config], dict[str, Any]]
    to_upstream: Callable[[Config], dict[str, Any]]
    published: Mapping[str, str]  # hub id by the name that model= takes
    published_sizes: Sizes
    mask_token: str  # the mask token's text, whose id the tokenizer and the configuration share
    end_of_turn: str  # that token's text
    end_of_turn_id: int  # taken where config.json has no eot_token_id, as the published ones
    remote_code: Mapping[str, str]  # auto_map of an export for upstream's users; never run here
    chat_template: str | None = None  # ours, where the published one opens a turn nobody asked for
    tokenizer: str | None = None  # transformers' class, where the published one is remote code
    needs_generation_config: bool = False  # whether upstream's code loads no model without one

    def count(self, sizes: Sizes) -> int:
        """Parameters of a network."""
        total = 0
        for spec in self.tensors(sizes):
            product = 1
            for length in spec.shape:
                product *= length
            total += product
        return total


def number(config: Config, *names: str) -> int:
    """The first of these fields that a configuration has.

    Raises UserError when it has none or no positive whole number: a default would load, and be
    wrong."""
    for name in names:
        if name in config:
            value = config[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"config.json: {name}={value!r}: must be a positive whole number")
            return value
    raise UserError(f"config.json: {' or '.join(names)} is missing; copy the published file")
