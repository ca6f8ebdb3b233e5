"""Peak memory of a training step; in float32, tests compare it with measured allocations."""

from dataclasses import dataclass
from typing import Literal

from weft_rl.families.shape import LOGITS_TOGETHER, ModelShape

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]

_FLOAT = 4
# Bytes per logit in the loss. float32: logits, log-probabilities and gradient. bfloat16: the same
# plus a bfloat16 copy of the gradient. With entropies: logits, log-probabilities and two copies.
_LOGIT_BYTES, _LOGIT_AND_ENTROPY_BYTES = 12, 16
# Bytes per logit in the sampler: the logits and three temporary copies.
_SAMPLED_LOGIT_BYTES = 16


@dataclass(frozen=True)
class Step:
    """A training step on one device, with its rollout."""

    model: ModelShape
    rows: int  # per forward pass with gradient
    length: int  # tokens per row
    predicted: int  # tokens per row with logits
    accumulates: bool = False  # gradients coexist with the next micro-batch
    devices: int = 1
    sharding: Sharding = "none"
    entropies: bool = False  # the loss needs token entropies
    cached_tokens: int = 0  # in the sampler's KV cache
    sampled_logits: int = 0  # positions whose logits the sampler holds at once
    sampled_tokens: int = 0  # per forward pass of the sampler
    ref_model: bool = False  # a frozen copy of the weights for the KL term

    def memory(self) -> dict[str, float]:
        """Bytes by component at the step's peak; components that are absent at the peak are 0.

        Weights, adapters and optimizer state are always present. They add to the largest of: loss,
        backward pass, optimizer update, rollout."""
        model, sizes, tokens = self.model, self.model.sizes, self.rows * self.length
        width = 2 if model.bf16 else _FLOAT
        by_zero2 = self.devices if self.sharding != "none" else 1
        by_zero3 = self.devices if self.sharding in ("zero3", "fsdp2") else 1
        always = {
            "weights": (1 + self.ref_model) * model.weight_bytes() / by_zero3,
            "adapters": model.num_trained * _FLOAT * (model.lora.r > 0) / by_zero3,
            "optimizer": 2 * _FLOAT * model.num_trained / by_zero2,
        }
        gradients = float(_FLOAT) * model.num_trained / by_zero2
        accumulated = gradients if self.accumulates else 0.0
        logits = self.rows * self.predicted * sizes.vocab_size
        # a trained head computed in parts: the accumulated gradient and that of one part
        in_parts = logits > LOGITS_TOGETHER and model.lora.r == 0
        head = 2.0 * _FLOAT * sizes.vocab_size * sizes.hidden_size if in_parts else 0.0
        activations = model.activation_bytes(tokens)
        at_loss = model.checkpoint_bytes(tokens) if model.checkpointing else activations
        per_logit = float(_LOGIT_AND_ENTROPY_BYTES if self.entropies else _LOGIT_BYTES)
        # the sampler's forward pass, or the logits after it
        layer = width * (3.0 * sizes.intermediate_size + 7.0 * sizes.hidden_size)
        sampled_logits = float(_SAMPLED_LOGIT_BYTES) * self.sampled_logits * sizes.vocab_size
        # sharded weights are gathered for a rollout
        gathered = model.weight_bytes() * (1 - 1 / by_zero3) if self.sampled_tokens else 0.0
        key_values = 2.0 * width * sizes.num_hidden_layers * sizes.key_width
        moments = [
            {
                "activations": at_loss,
                "logits": per_logit * min(logits, LOGITS_TOGETHER),
                "gradients": accumulated + head,
            },
            # the last layer's gradients come first
            {"activations": activations, "gradients": accumulated},
            {"gradients": gradients},
            {
                "KV cache": key_values * self.cached_tokens,
                "rollouts": max(layer * self.sampled_tokens, sampled_logits) + gathered,
            },
        ]
        names = ("gradients", "activations", "logits", "KV cache", "rollouts")
        peak = max(moments, key=lambda moment: sum(moment.values()))
        return always | {name: peak.get(name, 0.0) for name in names}
