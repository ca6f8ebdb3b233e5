"""What a training step takes, by formula: parameters, bytes of memory by part, operations; and what
devices have.

The formulas of memory hold for this package's own steps in float32, where tests compare them with
what the allocator says; in bfloat16 they follow from the same list of tensors.
D hidden, I inner, V vocabulary, all per token."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from weft_rl.families.shape import LOGITS_TOGETHER, ModelShape

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]

_FLOAT = 4
# Of a vocabulary's logits while the loss is differentiated: logits, log-probabilities and gradient
# in float32; in bfloat16 logits, log-probabilities, gradient and its narrow copy. Where entropies
# are wanted as well: logits, log-probabilities and two copies.
_LOGIT_BYTES, _LOGIT_AND_ENTROPY_BYTES = 12, 16
# Of a sampler's logits: themselves, and three copies on the way to a token and its confidence.
_SAMPLED_LOGIT_BYTES = 16


class Hardware(NamedTuple):
    """A device: its memory, products a second at best (bfloat16, dense), bytes read a second."""

    memory_gib: float
    tera_operations: float
    tera_bytes: float


# Memory as torch reports it of such a device, the rest from the makers' data sheets. The CPU is two
# cores of a server, as this package is tested on.
HARDWARE = {
    "h200": Hardware(139.8, 989, 4.8),
    "h100": Hardware(79.1, 989, 3.35),
    "a100": Hardware(79.1, 312, 2.0),
    "a100_40": Hardware(39.4, 312, 1.555),
    "rtx4090": Hardware(23.6, 165, 1.008),
    "cpu": Hardware(16.0, 0.1, 0.02),
}


@dataclass(frozen=True)
class Step:
    """A step of training on one device."""

    network: ModelShape
    rows: int  # of a forward with gradient
    length: int  # tokens of a row
    predicted: int  # of them with logits
    accumulated: bool = False  # gradients are there when the next rows' loss is computed
    devices: int = 1
    sharding: Sharding = "none"
    entropies: bool = False  # of the predictions, beside the loss
    cached_tokens: int = 0  # of which a sampler keeps keys and values
    sampled_logits: int = 0  # positions whose logits a sampler holds together
    sampled_tokens: int = 0  # that a sampler's forward takes in together
    reference: bool = False  # a frozen copy of the start stands beside what is trained

    def memory(self) -> dict[str, float]:
        """Bytes by part, at the moment of the step when they add up to most.

        Sampling and training alternate, so the larger of the two is counted: the other's parts are
        0. Weights, adapter and optimizer are there all the time."""
        network, parts = self.network, self._standing()
        tokens = self.rows * self.length
        width = 2 if network.half else _FLOAT
        each = _LOGIT_AND_ENTROPY_BYTES if self.entropies else _LOGIT_BYTES
        logits = float(each) * min(self._logits(), LOGITS_TOGETHER)
        gradients = network.trained * float(_FLOAT) / self._parts("zero2")
        way_back = network.activation_bytes(tokens)
        at_loss = network.checkpoint_bytes(tokens) if network.checkpointing else way_back
        before = gradients if self.accumulated else 0.0
        moments = [
            {
                "activations": at_loss,
                "logits": logits,
                "gradients": before + self._head_gradients(),
            },
            # without logits; the first gradients come with the last layer
            {"activations": way_back, "gradients": before},
            {"gradients": gradients},
            {
                "KV cache": 2.0 * width * self.cached_tokens * self._cache_width(),
                "rollouts": self._sampling() + self._gathered(),
            },
        ]
        names = ("gradients", "activations", "logits", "KV cache", "rollouts")
        most = max(moments, key=lambda moment: sum(moment.values()))
        return parts | {name: most.get(name, 0.0) for name in names}

    @property
    def in_parts(self) -> bool:
        """Whether the head is computed in parts, and once more on the way back."""
        return self._logits() > LOGITS_TOGETHER

    def _logits(self) -> int:
        return self.rows * self.predicted * self.network.sizes.vocab_size

    def _head_gradients(self) -> float:
        """Bytes of a trained head's gradient: its sum over the parts so far, and one part's."""
        sizes = self.network.sizes
        trained = self.in_parts and self.network.lora.r == 0
        return 2.0 * _FLOAT * sizes.vocab_size * sizes.hidden_size if trained else 0.0

    def _sampling(self) -> float:
        """Bytes of a sampler's forward without gradient, or of its logits, which come after it."""
        sizes = self.network.sizes
        width = 2 if self.network.half else _FLOAT
        layer = width * (3.0 * sizes.intermediate_size + 7.0 * sizes.hidden_size)
        logits = float(_SAMPLED_LOGIT_BYTES) * self.sampled_logits * sizes.vocab_size
        return max(layer * self.sampled_tokens, logits)

    def _gathered(self) -> float:
        """Bytes of the weights that are elsewhere in training and here for a rollout."""
        away = 1 - 1 / self._parts("zero3")
        return self.network.weight_bytes() * away if self.sampled_tokens else 0.0

    def _standing(self) -> dict[str, float]:
        network = self.network
        adapters = network.trained * _FLOAT if network.lora.r else 0
        copies = 1 + self.reference
        return {
            "weights": copies * network.weight_bytes() / self._parts("zero3"),
            "adapters": adapters / self._parts("zero3"),
            "optimizer": 2 * _FLOAT * network.trained / self._parts("zero2"),
        }

    def _parts(self, least: Literal["zero2", "zero3"]) -> int:
        """Over how many devices this form of sharding, or a lesser one, spreads something."""
        spread = self.sharding in ("zero3", "fsdp2", least)
        return self.devices if spread else 1

    def _cache_width(self) -> int:
        return self.network.sizes.num_hidden_layers * self.network.sizes.key_width


def forward_operations(
    network: ModelShape, length: int, predicted: int, seen: int | None = None
) -> float:
    """Operations of one row's forward: two a weight and token, and attention's two products.

    seen: tokens that each attends to, of which some may be kept in a cache; None: the row's."""
    sizes = network.sizes
    attention = 4.0 * sizes.num_hidden_layers * length * (seen or length) * sizes.hidden_size
    return 2.0 * length * network.in_layers + attention + head_operations(network, predicted)


def head_operations(network: ModelShape, predicted: int) -> float:
    """Operations of the head for so many positions."""
    return 2.0 * predicted * network.sizes.vocab_size * network.sizes.hidden_size


def backward_share(network: ModelShape) -> float:
    """Operations of the way back, in forwards: inputs' gradients, the weights' where all are
    trained, and the layers once more with checkpointing."""
    return 1.0 + (network.lora.r == 0) + network.checkpointing
