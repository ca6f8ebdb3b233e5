"""LLaDA's configuration under transformers' names; upstream's names are accepted as aliases."""

from typing import Any, ClassVar

from transformers import PreTrainedConfig

from weft_rl.errors import UserError
from weft_rl.families.fields import described
from weft_rl.families.llada import FIXED, fields

_NAMES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "hidden_act", "rope", "rope_theta"),
    *("rms_norm_eps", "initializer_range", "mask_token_id", "bos_token_id", "eos_token_id"),
    *("eot_token_id", "pad_token_id", "tie_word_embeddings"),
)


class LLaDAConfig(PreTrainedConfig):
    """Architecture of a masked diffusion language model of LLaDA's family.

    The defaults are LLaDA-8B's; with `rope=False`, upstream's other form, positions are learned
    vectors added to the tokens. `d_model`, `n_layers`, `n_heads`, `mlp_hidden_size`,
    `max_sequence_length` and `activation_type` are read and can be read back as well.
    Raises ValueError for an upstream option that the architecture here does not have.
    Source: the published configuration of LLaDA-8B."""

    model_type = "llada"
    attribute_map: ClassVar[dict[str, str]] = {
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "mlp_hidden_size": "intermediate_size",
        "max_sequence_length": "max_position_embeddings",
        "activation_type": "hidden_act",
    }
    # TRL looks this up before it reloads a reference model
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
    eot_token_id: int | None = 126348  # ends a turn; ends a completion as well
    pad_token_id: int | None = 126081
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        own = {name: getattr(self, name) for name in _NAMES}
        renamed = {self.attribute_map.get(name, name): value for name, value in kwargs.items()}
        try:
            fields(own | renamed)
        except UserError as error:
            raise ValueError(str(error).replace("config.json", type(self).__name__, 1)) from error
        for name in (*FIXED, "n_kv_heads", "num_key_value_heads", "embedding_size", "head_dim"):
            kwargs.pop(name, None)
        super().__post_init__(**kwargs)
        if self.pad_token_id == self.mask_token_id:
            raise ValueError("LLaDAConfig: pad_token_id and mask_token_id must differ")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration of a config.json's content, of either layout.

        Options that change nothing are left out: how attention is computed is the network's own.
        Raises UserError as the family's `fields` does."""
        own = fields(config_dict)
        return super().from_dict(described(config_dict) | own, **kwargs)

    @property
    def end_token_ids(self) -> list[int]:
        """What ends a completion: end of text, and end of turn where the family has one."""
        return end_tokens(self)


def end_tokens(config: Any) -> list[int]:
    """The end tokens of a configuration, without a default that its vocabulary does not have."""
    eos, size = getattr(config, "eos_token_id", None), getattr(config, "vocab_size", None)
    ends = (*(eos if isinstance(eos, list) else [eos]), getattr(config, "eot_token_id", None))
    return [token for token in ends if token is not None and (size is None or token < size)]
