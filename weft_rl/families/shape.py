"""The shape of a model: its parameters and the memory that weights and activations take.

D hidden, I inner, V vocabulary, all per token."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weft_rl.config.model import LoraConfig
from weft_rl.errors import UserError
from weft_rl.families.base import Family, Sizes
from weft_rl.families.registry import family_of, read_config

Weights = Literal["float32", "bfloat16", "nf4"]

_FLOAT = 4
# 4 bits, and a scale of 8 bits for 64 of them, themselves scaled by 256: QLoRA's double quantising.
_NF4 = 0.5 + 1 / 64 + _FLOAT / (64 * 256)
# Logits that a loss has at a time, in as many parts as there are. 2^25 are 128 MiB in float32, and
# 265 positions of LLaDA's vocabulary: enough to fill a GPU, too many for a small model to need two.
LOGITS_TOGETHER = 2**25


@dataclass(frozen=True)
class ModelShape:
    """A model as a step sees it: what is trained of it, and what its weights are kept in."""

    family: Family
    sizes: Sizes
    lora: LoraConfig
    weights: Weights
    checkpointing: bool
    half: bool  # products in bfloat16, as on a GPU

    @property
    def count(self) -> int:
        """All parameters but an adapter's."""
        return self.family.count(self.sizes)

    @property
    def in_layers(self) -> int:
        """Parameters of the layers' matrices: what 4 bits and adapters are for."""
        return sum(rows * columns for _, rows, columns in self.matrices())

    def adapted(self) -> list[tuple[str, int, int]]:
        """Name, rows and columns of each matrix that has an adapter."""
        return [item for item in self.matrices() if item[0] in self.lora.targets]

    def matrices(self) -> list[tuple[str, int, int]]:
        """Name, rows and columns of each matrix in the layers."""
        found = []
        for spec in self.family.tensors(self.sizes):
            name, _, kind = spec.upstream.removesuffix(".weight").rpartition(".")
            if len(spec.shape) == 2 and (".blocks." in name or ".layers." in name):
                found.append((kind, spec.shape[0], spec.shape[1]))
        return found

    @property
    def trained(self) -> int:
        """Parameters that a step changes: all, or the adapter's."""
        if self.lora.r == 0:
            return self.count
        return sum(self.lora.r * (rows + columns) for _, rows, columns in self.adapted())

    def weight_bytes(self) -> float:
        """Of the weights alone."""
        if self.weights == "nf4":
            # embeddings, head and norms stay wide
            return self.in_layers * _NF4 + 2 * (self.count - self.in_layers)
        return self.count * (_FLOAT if self.weights == "float32" else 2)

    def saved_per_layer(self) -> float:
        """Bytes a token that a layer keeps for the way back."""
        d, i = self.sizes.hidden_size, self.sizes.intermediate_size
        width = 2 if self.half else _FLOAT
        # residual before both norms (float32 there, whatever it was), queries, attended, and the
        # narrower keys and values; gate before and after its activation, and what it multiplies
        kept = width * (2 * d + 2 * self.sizes.key_width + 3 * i)
        kept += _FLOAT * (2 * d + self.sizes.num_attention_heads + 2)
        if self.half:
            kept += width * 2 * d  # the residual itself, beside its wide copies
        if self.lora.r == 0:
            # what each norm's weight and each matrix is multiplied with
            return kept + width * (4 * d + i)
        targets = {name: columns for name, _, columns in self.adapted()}
        shared = [("q_proj", "k_proj", "v_proj"), ("ff_proj", "gate_proj", "up_proj")]
        inputs = sum(d for names in shared if targets.keys() & set(names))
        inputs += i if targets.keys() & {"ff_out", "down_proj"} else 0
        return kept + width * inputs + self._adapters_per_layer()

    def _adapters_per_layer(self) -> float:
        """Bytes a token that a layer's adapters keep: their narrow products and, with dropout, what
        it left of each input, and a mask."""
        width = 2 if self.half else _FLOAT
        columns = [columns for _, _, columns in self.adapted()]
        per_layer = len(columns) / self.sizes.num_hidden_layers
        dropped = sum(columns) * (width + 1) if self.lora.dropout else 0
        return width * self.lora.r * per_layer + dropped / self.sizes.num_hidden_layers

    def activation_bytes(self, tokens: int) -> float:
        """Of one forward with gradient, the head left out."""
        d, i = self.sizes.hidden_size, self.sizes.intermediate_size
        width, layers = (2 if self.half else _FLOAT), self.sizes.num_hidden_layers
        if not self.checkpointing:
            return tokens * (layers * self.saved_per_layer() + 3 * width * d)
        # a layer's input each, and one layer on its way back
        back = width * (6 * i + 7 * d) + (self._adapters_per_layer() if self.lora.r else 0)
        return self.checkpoint_bytes(tokens) + tokens * back

    def checkpoint_bytes(self, tokens: int) -> float:
        """Of the layers' inputs alone, which are all there is while the loss is computed."""
        width = 2 if self.half else _FLOAT
        return tokens * width * (self.sizes.num_hidden_layers + 3) * self.sizes.hidden_size

    def check_targets(self) -> None:
        """Raise UserError for an adapter's target that no matrix is called by."""
        names = {name for name, _, _ in self.matrices()}
        for target in self.lora.targets if self.lora.r else ():
            if target not in names:
                raise UserError(
                    f"{self.lora.prefix}targets: no module is called {target}; there are "
                    + ", ".join(sorted(names))
                )


def shape_of(
    folder: Path, lora: LoraConfig, weights: Weights = "float32", checkpointing: bool = False
) -> ModelShape:
    """The shape of a folder's model, by its config.json. Raises UserError for an unknown one."""
    content = read_config(folder)
    family, _ = family_of(content, folder)
    return ModelShape(family, family.sizes(content), lora, weights, checkpointing, half=False)
