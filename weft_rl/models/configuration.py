"""Configurations of the families' networks, under transformers' names and upstream's aliases."""

from typing import Any, ClassVar

from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from weft_rl.errors import UserError
from weft_rl.families.a2d import A2D_LLAMA, A2D_QWEN2, A2D_QWEN3
from weft_rl.families.base import Family
from weft_rl.families.dream import DREAM
from weft_rl.families.fields import COMMON, metadata
from weft_rl.families.llada import LLADA


class MaskedConfig(PreTrainedConfig):
    """What the families share: their layouts of config.json, and the end of a completion."""

    family: ClassVar[Family]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read a config.json of either layout. Raises UserError as `Family.fields` does."""
        fields = cls.family.fields(config_dict)
        return super().from_dict(metadata(config_dict) | fields, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        values: Any = self
        if values.mask_token_id is not None and values.pad_token_id == values.mask_token_id:
            raise ValueError(f"{type(self).__name__}: pad_token_id and mask_token_id must differ")

    @property
    def end_token_ids(self) -> list[int]:
        """Tokens that end a completion: end of text and end of turn."""
        return end_tokens(self)


class LLaDAConfig(MaskedConfig):
    """Architecture of a masked diffusion language model; the defaults are LLaDA-8B's.

    `rope=False`: learned position embeddings. Upstream's names (`attribute_map`) work too. Raises
    ValueError for unsupported upstream options. Source: the published configuration."""

    model_type = "llada"
    family = LLADA
    attribute_map: ClassVar[dict[str, str]] = {
        upstream: name
        for name, upstream in LLADA.field_names.items()
        if name != "num_key_value_heads"
    }
    # TRL reads it before it reloads a reference model
    auto_map: ClassVar[dict[str, str]] = {}

    vocab_size: int = 126464
    hidden_size: int = 4096
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    intermediate_size: int = 12288
    max_position_embeddings: int = 4096
    hidden_act: str = "silu"
    rope: bool = True
    rope_theta: float = 500000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    mask_token_id: int = 126336
    bos_token_id: int | None = 126080
    eos_token_id: int | list[int] | None = 126081
    eot_token_id: int | None = 126348  # ends a turn and a completion
    pad_token_id: int | None = 126081
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        names = (*COMMON, *LLADA.kinds, "tie_word_embeddings")
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        renamed = {self.attribute_map.get(name, name): value for name, value in kwargs.items()}
        try:
            LLADA.fields(values | renamed)
        except UserError as error:
            raise ValueError(str(error).replace("config.json", type(self).__name__, 1)) from error
        for name in (*LLADA.fixed, *LLADA.equal, "n_kv_heads", "head_dim"):
            kwargs.pop(name, None)
        super().__post_init__(**kwargs)


class DreamConfig(MaskedConfig, Qwen2Config):
    """Qwen2's fields with Dream-7B's special ids. Source: the published configuration."""

    model_type = "Dream"
    family = DREAM

    mask_token_id: int = 151666
    bos_token_id: int | None = 151643
    eos_token_id: int | list[int] | None = 151643
    eot_token_id: int | None = 151645  # ends a turn and a completion
    pad_token_id: int | None = 151643
    logit_shift: ClassVar[bool] = True
    block_size: ClassVar[None] = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # transformers reads it to build the attention mask
        self.is_causal = False


class A2DConfig(MaskedConfig):
    """The fields that an A2D model adds to those of its autoregressive class.

    logit_shift: the output at a position predicts the next one, as before adaptation. block_size:
    positions attend to their own and earlier blocks of this size; None: to all positions."""

    mask_token_id: int | None = None
    eot_token_id: int | None = None  # ends a turn and a completion
    logit_shift: bool = False
    block_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # transformers reads it to build the attention mask
        self.is_causal = False


class A2DLlamaConfig(A2DConfig, LlamaConfig):
    """LlamaConfig with A2DConfig's fields."""

    model_type = A2D_LLAMA.model_types[0]
    family = A2D_LLAMA


class A2DQwen2Config(A2DConfig, Qwen2Config):
    """Qwen2Config with A2DConfig's fields."""

    model_type = A2D_QWEN2.model_types[0]
    family = A2D_QWEN2


class A2DQwen3Config(A2DConfig, Qwen3Config):
    """Qwen3Config with A2DConfig's fields."""

    model_type = A2D_QWEN3.model_types[0]
    family = A2D_QWEN3


def end_tokens(config: Any) -> list[int]:
    """Return a configuration's end tokens that are in its vocabulary, the end of a turn last."""
    eos, size = getattr(config, "eos_token_id", None), getattr(config, "vocab_size", None)
    turn = getattr(config, "eot_token_id", None)
    ends = [token for token in (eos if isinstance(eos, list) else [eos]) if token != turn]
    return [
        token for token in (*ends, turn) if token is not None and (size is None or token < size)
    ]


def generation_config(config: Any) -> GenerationConfig:
    """Return the generation settings that TRL expects on a model."""
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.end_token_ids,
        pad_token_id=config.pad_token_id,
    )


def check_inputs(config: Any, attention_mask: Tensor | None, batch: int, length: int) -> None:
    """Raise ValueError for a mask that is not (batch, length) or a length over the maximum."""
    if length > config.max_position_embeddings:
        raise ValueError(
            f"{length} tokens exceed the model's "
            f"max_position_embeddings={config.max_position_embeddings}"
        )
    if attention_mask is not None and attention_mask.shape != (batch, length):
        raise ValueError(f"attention_mask {tuple(attention_mask.shape)} must be {(batch, length)}")
