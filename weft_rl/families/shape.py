"""Parameter counts of a model, and memory of its weights and activations."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weft_rl.config.model import LoraConfig
from weft_rl.errors import UserError
from weft_rl.families import family_of, read_config
from weft_rl.families.base import Family, Sizes

Weights = Literal["float32", "bfloat16", "nf4"]

_FLOAT = 4
# QLoRA's double quantization: 4 bits, an 8-bit scale per 64, a float32 scale per 256 of these
_NF4 = 0.5 + 1 / 64 + _FLOAT / (64 * 256)
# Logits per chunk of a loss: 128 MiB in float32, 265 positions of LLaDA; enough to fill a GPU.
LOGITS_TOGETHER = 2**25


@dataclass(frozen=True)
class ModelShape:
    """Trained parameters and storage of the base weights in a stage."""

    family: Family
    sizes: Sizes
    lora: LoraConfig
    weights: Weights
    checkpointing: bool
    bf16: bool  # autocast, as on a GPU

    @property
    def num_params(self) -> int:
        """Number of parameters without adapters."""
        return self.family.count(self.sizes)

    @property
    def layer_params(self) -> int:
        """Number of parameters in layer matrices, which quantization and adapters apply to."""
        return sum(rows * columns for _, rows, columns in self.matrices())

    @property
    def num_trained(self) -> int:
        """Trainable parameters: all, or those of the adapters."""
        if self.lora.r == 0:
            return self.num_params
        return sum(self.lora.r * (rows + columns) for _, rows, columns in self.adapted())

    def matrices(self) -> list[tuple[str, int, int]]:
        """Name, rows and columns of each layer matrix."""
        layers = (s for s in self.family.tensors(self.sizes) if ".layers." in s.transformers)
        return [(s.upstream.split(".")[-2], *s.shape) for s in layers if len(s.shape) == 2]

    def adapted(self) -> list[tuple[str, int, int]]:
        """Name, rows and columns of each matrix with an adapter."""
        return [matrix for matrix in self.matrices() if matrix[0] in self.lora.targets]

    def check_targets(self) -> None:
        """Raise UserError for an adapter target that is not a matrix of the model."""
        require_targets(self.lora, {name for name, _, _ in self.matrices()})

    @property
    def _width(self) -> int:
        return 2 if self.bf16 else _FLOAT

    def weight_bytes(self) -> float:
        """Bytes of the base weights."""
        if self.weights == "nf4":  # embeddings, head and norms are not quantized
            return self.layer_params * _NF4 + 2 * (self.num_params - self.layer_params)
        return self.num_params * (_FLOAT if self.weights == "float32" else 2)

    def saved_per_layer(self) -> float:
        """Bytes per token that a layer saves for the backward pass."""
        d, i = self.sizes.hidden_size, self.sizes.intermediate_size
        # queries, attention output, keys and values; gate before and after activation, and up
        saved = self._width * (2 * self.sizes.query_width + 2 * self.sizes.key_width + 3 * i)
        # float32 inputs of both norms; statistics of norms and attention
        saved += _FLOAT * (2 * d + self.sizes.num_attention_heads + 2)
        if self.bf16:
            saved += self._width * 2 * d  # the residual, in addition to its float32 copies
        if self.lora.r == 0:  # inputs of each norm's weight and of each matrix
            return saved + self._width * (4 * d + i)
        targets = {name for name, _, _ in self.adapted()}
        sharing = [{"q_proj", "k_proj", "v_proj"}, {"ff_proj", "gate_proj", "up_proj"}]
        inputs = sum(d for names in sharing if targets & names)
        inputs += i if targets & {"ff_out", "down_proj"} else 0
        return saved + self._width * inputs + self._adapters_per_layer()

    def _adapters_per_layer(self) -> float:
        """Per token: rank-r activations and, with dropout, each input after it and its mask."""
        columns = [columns for _, _, columns in self.adapted()]
        dropped = sum(columns) * (self._width + 1) if self.lora.dropout else 0
        saved = self._width * self.lora.r * len(columns) + dropped
        return saved / self.sizes.num_hidden_layers

    def activation_bytes(self, tokens: int) -> float:
        """Bytes saved by a forward pass with gradient, without the head."""
        d, i = self.sizes.hidden_size, self.sizes.intermediate_size
        if not self.checkpointing:
            layers = self.sizes.num_hidden_layers * self.saved_per_layer()
            return tokens * (layers + 3 * self._width * d)
        # each layer's input, and the backward pass of one layer
        backward = self._width * (6 * i + 7 * d)
        backward += self._adapters_per_layer() if self.lora.r else 0
        return self.checkpoint_bytes(tokens) + tokens * backward

    def checkpoint_bytes(self, tokens: int) -> float:
        """Bytes of the layers' inputs, which gradient checkpointing saves."""
        layers = self.sizes.num_hidden_layers + 3
        return tokens * self._width * layers * self.sizes.hidden_size


def require_targets(lora: LoraConfig, names: Collection[str]) -> None:
    """Raise UserError for an adapter target that is not among the names of the modules."""
    for target in lora.targets if lora.r else ():
        if target not in names:
            modules = ", ".join(sorted(names))
            raise UserError(f"{lora.prefix}targets: no module is named {target}; use {modules}")


def shape_of(folder: Path, lora: LoraConfig) -> ModelShape:
    """Return the shape of a folder's model, also of one to adapt. Raises UserError if unknown."""
    config = read_config(folder, adapt=True)
    family, _ = family_of(config, folder)
    return ModelShape(family, family.sizes(config), lora, "float32", False, bf16=False)
