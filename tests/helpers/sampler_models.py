"""Small models and prompts for the tests of the sampler."""

from types import SimpleNamespace

import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from weft_rl.models import LLaDAConfig, LLaDAForMaskedLM
from weft_rl.sampler import SamplerOutput

MASK, END, TURN = 3, 1, 2


class TinyNet(nn.Module):
    """Bidirectional float64 network: rounding across batches and padding is negligible."""

    def __init__(self, vocab_size, seed, width=6):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.embedding, self.mix = weight(vocab_size, width), weight(width, width)
        self.head = weight(width, vocab_size)
        self.config = SimpleNamespace(mask_token_id=MASK, eos_token_id=[END], eot_token_id=TURN)

    def forward(self, input_ids, attention_mask=None):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        place = torch.arange(input_ids.shape[1])
        # relative and asymmetric distances: left padding must not matter
        offset = place[:, None] - place
        near = torch.exp(-offset.abs() / torch.where(offset > 0, 2.0, 3.5).double())
        near = near * attention_mask[:, None, :]
        x = self.embedding[input_ids]
        mixed = (near / near.sum(dim=-1, keepdim=True)) @ x @ self.mix
        return SimpleNamespace(logits=torch.tanh(x + 2 * mixed) @ self.head)


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.as_tensor(logits, dtype=torch.float32)
        self.config = SimpleNamespace(mask_token_id=MASK, eos_token_id=END)

    def forward(self, input_ids, attention_mask=None):
        shape = (*input_ids.shape, self.logits.shape[-1])
        return SimpleNamespace(logits=self.logits.expand(shape))


def llada(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"mask_token_id": MASK, "eos_token_id": END, "pad_token_id": END, "eot_token_id": TURN}
    names = {"vocab_size": 13, "intermediate_size": 32, "initializer_range": 0.5}
    more = {"max_position_embeddings": 40, "rope_theta": 100.0, **options}
    return LLaDAForMaskedLM(LLaDAConfig(**{**sizes, **ids, **names, **more}))


def prompts(rng, batch, vocab_size, spare=2):
    """Prompts of different lengths, left-padded with ordinary tokens."""
    words = [token for token in range(vocab_size) if token != MASK]
    lengths = [rng.randint(1, 6) for _ in range(batch)]
    width = max(lengths) + rng.randint(0, spare)
    ids = torch.tensor([[rng.choice(words) for _ in range(width)] for _ in lengths])
    visible = torch.tensor([[int(i >= width - length) for i in range(width)] for length in lengths])
    return ids, visible


def bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=11,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.5,
        eos_token_id=END,
        mask_token_id=MASK,
        **sizes,
    )
    return BertForMaskedLM(config).double()


def canned(rows, ends):
    """A sampler that completes every batch with these rows."""

    def generate(model, prompts, *_, **__):
        completions = torch.tensor(rows[: len(prompts)])
        end = torch.isin(completions, torch.tensor(ends))
        lengths = torch.where(end.any(1), end.int().argmax(1), completions.shape[1])
        return SamplerOutput(torch.cat([prompts, completions], 1), completions, lengths, 1, None)

    return generate
