"""Peak memory of a training step, by formula.

In float32 the tests compare the formulas with the allocator's own account; in bfloat16 they follow
from the same list of tensors."""

from dataclasses import dataclass
from typing import Literal

from weft_rl.families.shape import LOGITS_TOGETHER, ModelShape

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]

_FLOAT = 4
# Bytes per logit in the loss: in float32 logits, log-probabilities and gradient; in bfloat16
# logits, log-probabilities, gradient and its narrow copy. With entropies: logits,
# log-probabilities and two copies.
_LOGIT_BYTES, _LOGIT_AND_ENTROPY_BYTES = 12, 16
# Bytes per logit in the sampler: the logits, and three copies on the way to a token.
_SAMPLED_LOGIT_BYTES = 16


@dataclass(frozen=True)
class Step:
    """A training step on one device, with the rollout that it needs."""

    model: ModelShape
    rows: int  # of a forward pass with gradient
    length: int  # tokens per row
    predicted: int  # tokens per row that have logits
    accumulates: bool = False  # gradients exist while the next micro-batch is computed
    devices: int = 1
    sharding: Sharding = "none"
    entropies: bool = False  # the loss needs token entropies
    cached_tokens: int = 0  # in the sampler's KV cache
    sampled_logits: int = 0  # positions whose logits the sampler holds together
    sampled_tokens: int = 0  # in one forward pass of the sampler
    ref_model: bool = False  # a frozen copy of the weights for the KL term

    def memory(self) -> dict[str, float]:
        """Bytes by part at the step's peak; parts that do not exist then are 0.

        Weights, adapters and optimizer state exist all the time, and so add to whichever moment
        needs most: the loss, the backward pass, the optimizer's update or the rollout."""
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
        # a trained head that is computed in parts: its gradient so far, and one part's
        in_parts = logits > LOGITS_TOGETHER and model.lora.r == 0
        head = 2.0 * _FLOAT * sizes.vocab_size * sizes.hidden_size if in_parts else 0.0
        activations = model.activation_bytes(tokens)
        at_loss = model.checkpoint_bytes(tokens) if model.checkpointing else activations
        per_logit = float(_LOGIT_AND_ENTROPY_BYTES if self.entropies else _LOGIT_BYTES)
        # the sampler's forward pass without gradient, or the logits that come after it
        layer = width * (3.0 * sizes.intermediate_size + 7.0 * sizes.hidden_size)
        sampled_logits = float(_SAMPLED_LOGIT_BYTES) * self.sampled_logits * sizes.vocab_size
        # weights that are sharded in training and gathered for a rollout
        gathered = model.weight_bytes() * (1 - 1 / by_zero3) if self.sampled_tokens else 0.0
        key_values = 2.0 * width * sizes.num_hidden_layers * sizes.key_width
        moments = [
            {
                "activations": at_loss,
                "logits": per_logit * min(logits, LOGITS_TOGETHER),
                "gradients": accumulated + head,
            },
            # the first gradients come with the last layer
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
