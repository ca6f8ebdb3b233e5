"""The WeFT loss in a plain training loop: python examples/weft_loss_in_your_trainer.py MODEL"""

import sys

import torch

from weft_rl import load_model, load_tokenizer, nelbo, weft_loss
from weft_rl.data.text import TextEncoder

PAIRS = [("1 + 2", "3"), ("2 + 2", "4"), ("3 + 4", "7"), ("5 + 4", "9")]


def encode(tokenizer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids, labels (-100 for prompt and padding) and attention_mask of the pairs: (B, L)."""
    rows, encoder = [], TextEncoder(tokenizer)  # special tokens in a text stay text
    for question, answer in PAIRS:
        (prompt,) = encoder.chats([[{"role": "user", "content": question}]])
        target = [*encoder.texts([answer])[0], tokenizer.eos_token_id]
        rows.append((prompt + target, [-100] * len(prompt) + target))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([given + [-100] * (width - len(given)) for _, given in rows])
    visible = torch.tensor([[int(i < len(ids)) for i in range(width)] for ids, _ in rows])
    return ids, labels, visible


def main(name: str, steps: int = 50) -> tuple[float, float]:
    """Train; return the bound in nats per sequence before and after."""
    model, tokenizer = load_model(name), load_tokenizer(name)
    ids, labels, visible = encode(tokenizer)
    before = nelbo(model, ids, labels, visible).mean().item()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        loss = weft_loss(model, ids, labels, visible, recipe="weft", seeds=generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = nelbo(model, ids, labels, visible).mean().item()
    print(f"bound on -log p(answer): {before:.2f} nats before, {after:.2f} after")
    return before, after


if __name__ == "__main__":
    main(sys.argv[1])
