"""A model family as data: tensor names and config.json fields of both layouts."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import prod
from typing import Any, NamedTuple

from weft_rl.families.fields import (
    COMMON,
    Kind,
    check_shapes,
    missing,
    read_fields,
    refused,
    rotary,
)

Config = Mapping[str, Any]  # content of a config.json


@dataclass(frozen=True)
class Sizes:
    """Dimensions of a network, under transformers' names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    learned_positions: int = 0  # rows of a position table; 0: rotary positions
    head_dim: int = 0  # width of an attention head; 0: hidden_size / num_attention_heads
    tied: bool = False  # whether the head is the embedding

    def __post_init__(self) -> None:
        width = self.head_dim or self.hidden_size // self.num_attention_heads
        object.__setattr__(self, "head_dim", width)

    @property
    def query_width(self) -> int:
        """Width of a token's queries."""
        return self.head_dim * self.num_attention_heads

    @property
    def key_width(self) -> int:
        """Width of a token's keys, and of its values."""
        return self.head_dim * self.num_key_value_heads


SIZE_FIELDS = tuple(item.name for item in fields(Sizes) if item.default is MISSING)
# Weights of a Llama block: module and dimensions, by their names in Sizes.
LLAMA_BLOCK: Mapping[str, tuple[str, ...]] = {
    "input_layernorm": ("hidden_size",),
    "self_attn.q_proj": ("query_width", "hidden_size"),
    "self_attn.k_proj": ("key_width", "hidden_size"),
    "self_attn.v_proj": ("key_width", "hidden_size"),
    "self_attn.o_proj": ("hidden_size", "query_width"),
    "post_attention_layernorm": ("hidden_size",),
    "mlp.gate_proj": ("intermediate_size", "hidden_size"),
    "mlp.up_proj": ("intermediate_size", "hidden_size"),
    "mlp.down_proj": ("hidden_size", "intermediate_size"),
}
# Fields of a published file that transformers' classes lack.
_UPSTREAM_ONLY = ("rope", "embedding_size")


class Spec(NamedTuple):
    """A tensor: its published name, its name in transformers' class, and its shape."""

    upstream: str
    transformers: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A family of checkpoints, Llama-like without a causal mask; FAMILIES lists them.

    Fields and modules have transformers' names unless stated otherwise."""

    name: str
    model_types: tuple[str, ...]  # in a published config.json; exports use the first
    transformers_type: str  # model_type in transformers' layout
    architectures: tuple[str, str]  # class names: published, transformers'
    network: str  # "module:Class" of the model; its module imports torch
    published: Mapping[str, str]  # Hub id by the name that model= accepts
    published_sizes: Sizes
    license: str  # of the published weights, as the Hub spells it
    mask_token: str
    end_of_turn: str
    end_of_turn_id: int | None  # for a config.json without eot_token_id, as the published ones
    remote_code: Mapping[str, str]  # auto_map of an export for upstream's users; never run here
    autoregressive: Mapping[str, str] = field(default_factory=dict)  # to adapt; like published
    run_on: str = ""  # published weights that this package was run on
    mask_tokens: tuple[str, ...] = ()  # possible names, where the tokenizer decides; else one

    # tensors
    block: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LLAMA_BLOCK)
    biases: tuple[str, ...] = ()  # modules of a block that have one
    module_names: Mapping[str, str] = field(default_factory=dict)  # published, if different

    # config.json
    field_names: Mapping[str, str] = field(default_factory=dict)  # published, if different
    kinds: Mapping[str, Kind] = field(default_factory=dict)  # fields in addition to COMMON
    required: tuple[str, ...] = SIZE_FIELDS
    required_in_transformers: tuple[str, ...] = ()  # where defaults of both classes differ
    defaults: Mapping[str, Any] = field(default_factory=dict)
    saved_defaults: Mapping[str, Any] = field(default_factory=dict)  # which our class omits
    fixed: Mapping[str, Any] = field(default_factory=dict)  # published options with one value
    equal: Mapping[str, str] = field(default_factory=dict)  # fields that repeat another field
    ignored: tuple[str, ...] = ()  # options without effect
    scaled_positions: bool = False  # whether the network implements rope_scaling
    any_head_dim: bool = False  # whether heads may be wider or narrower than their share
    vocabulary_ids: tuple[str, ...] = ("mask_token_id", "eos_token_id", "pad_token_id")

    # tokenizer and generation_config.json
    chat_template: str | None = None  # replaces a published one that opens an unrequested turn
    tokenizer: str | None = None  # transformers' class that replaces a published remote one
    needs_generation_config: bool = False  # whether upstream's loader requires the file

    def fields(self, config: Config) -> dict[str, Any]:
        """Return the network's fields from either layout, with `rope_scaling` only if scaled.

        Raises UserError for missing, damaged or unsupported values."""
        upstream, kinds = self.field_names, COMMON | dict(self.kinds)
        is_transformers = config.get("model_type") == self.transformers_type
        is_saved = not is_transformers and upstream.get("hidden_size", "hidden_size") not in config
        defaults = {**self.defaults, **(self.saved_defaults if is_saved else {})}
        required = set(self.required) - defaults.keys()
        if is_transformers:
            required |= set(self.required_in_transformers)
        for name in sorted(required):
            key = name if is_transformers else upstream.get(name, name)
            if config.get(key) is None and not (key in config and kinds[name].allows_null):
                raise missing(key)
        aliases = {published: name for name, published in upstream.items()}
        values = defaults | read_fields(config, kinds, self.fixed, aliases, self.ignored)
        has_rope = values.get("rope", True)
        base = (defaults if has_rope else self.saved_defaults).get("rope_theta")
        values["rope_theta"], scaling = rotary(config, base, is_scaled=self.scaled_positions)
        values |= {"rope_scaling": scaling} if scaling else {}
        for name, other in self.equal.items():
            if values.setdefault(name, values[other]) != values[other]:
                name = next(key for key in (upstream.get(name, name), name) if key in config)
                raise refused(name, config[name], f"must equal {other}={values[other]}")
        values.setdefault("num_key_value_heads", values["num_attention_heads"])
        layers = config.get("layer_types") if "layer_types" in self.ignored else None
        if layers not in (None, ["full_attention"] * values["num_hidden_layers"]):
            raise refused("layer_types", layers, "must all be full_attention")
        check_shapes(
            values, paired=has_rope, tokens=self.vocabulary_ids, any_head_dim=self.any_head_dim
        )
        return values

    def sizes(self, config: Config) -> Sizes:
        """Return the dimensions of a config.json of either layout. Raises UserError as `fields`."""
        values = self.fields(config)
        positions = 0 if values.get("rope", True) else values["max_position_embeddings"]
        return Sizes(
            *(values[name] for name in SIZE_FIELDS),
            learned_positions=positions,
            head_dim=values.get("head_dim") or 0,
            tied=values.get("tie_word_embeddings", False),
        )

    @property
    def has_one_layout(self) -> bool:
        """Whether transformers' layout differs from the published one by its model_type only."""
        return not (self.module_names or self.field_names or self.fixed)

    def tensors(self, sizes: Sizes) -> list[Spec]:
        """List the tensors of a checkpoint."""
        return list(self._tensors(sizes))

    def vocabulary(self, sizes: Sizes) -> tuple[Spec, Spec]:
        """Return the embedding and the head, which a checkpoint lacks if it is tied."""
        shape = (sizes.vocab_size, sizes.hidden_size)
        return self._weight("model.embed_tokens", *shape), self._weight("lm_head", *shape)

    def _weight(self, module: str, *shape: int) -> Spec:
        published = self.module_names.get(module, module)
        return Spec(f"{published}.weight", f"{module}.weight", shape)

    def _tensors(self, sizes: Sizes) -> Iterator[Spec]:
        names, width, weight = self.module_names, sizes.hidden_size, self._weight
        embedding, head = self.vocabulary(sizes)
        yield embedding
        if sizes.learned_positions:
            yield weight("model.embed_positions", sizes.learned_positions, width)
        layers = names.get("model.layers", "model.layers")
        for n in range(sizes.num_hidden_layers):
            for module, dimensions in self.block.items():
                shape = tuple(getattr(sizes, name) for name in dimensions)
                upstream = f"{layers}.{n}.{names.get(module, module)}"
                yield Spec(f"{upstream}.weight", f"model.layers.{n}.{module}.weight", shape)
                if module in self.biases:
                    yield Spec(f"{upstream}.bias", f"model.layers.{n}.{module}.bias", shape[:1])
        yield weight("model.norm", width)
        if not sizes.tied:
            yield head

    def count(self, sizes: Sizes) -> int:
        """Count the parameters of a network."""
        return sum(prod(spec.shape) for spec in self.tensors(sizes))

    def to_transformers(self, config: Config) -> dict[str, Any]:
        """Return the config.json of transformers' layout without model_type."""
        values = self.fields(config)
        rope = {"rope_type": "default", **values.pop("rope_scaling", {})}
        rope["rope_theta"] = values.pop("rope_theta")
        return {
            "architectures": [self.architectures[1]],
            **{"is_causal": False, "tie_word_embeddings": False, "use_cache": False},
            "rope_parameters": rope,
            **{name: value for name, value in values.items() if name not in _UPSTREAM_ONLY},
        }

    def to_upstream(self, config: Config) -> dict[str, Any]:
        """Return the config.json under the published names without model_type."""
        values = self.fields(config).items()
        renamed = {self.field_names.get(name, name): value for name, value in values}
        return {"architectures": [self.architectures[0]], **self.fixed, **renamed}
