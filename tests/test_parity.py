"""Logits equal to the published networks' formulas, bit by bit, in float32 and bfloat16.

The published code itself gives the same bits on these shapes."""

import naive_networks
import pytest
import torch
from upstream_checkpoint import (
    DREAM_CONFIG,
    LLADA_CONFIG,
    dream_shapes,
    llada_shapes,
    random_tensors,
    write_folder,
)

from weft_rl.models.loading import load_model

SHAPES = {
    "llada": [
        {},
        {"d_model": 128, "n_heads": 2, "n_kv_heads": 2, "rope_theta": 500000.0, "n_layers": 4},
        {"d_model": 64, "n_heads": 8, "n_kv_heads": 8, "rope_theta": 10000.0},
    ],
    "dream": [
        {},
        {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 1e6},
        {"hidden_size": 64, "num_key_value_heads": 4, "rope_theta": 1e4, "num_hidden_layers": 4},
    ],
}


def some_input(rows, length):
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(2, 200, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, : row * length // 5] = 0
    return ids, mask


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "shape"), [(kind, s) for kind in SHAPES for s in SHAPES[kind]])
def test_logits(tmp_path, kind, shape, dtype):
    """Under left padding too, where Dream's positions count the visible tokens."""
    if kind == "llada":
        rows = {"vocab_size": 200, "embedding_size": 200, "max_sequence_length": 160}
        config = LLADA_CONFIG | rows | shape
        shapes = llada_shapes(config)
    else:
        config = DREAM_CONFIG | {"vocab_size": 200, "max_position_embeddings": 160} | shape
        shapes = dream_shapes(config)
    tensors = random_tensors(shapes, dtype)
    tensors = {name: 0.3 * t if t.dim() > 1 else t for name, t in tensors.items()}
    folder, naive = write_folder(tmp_path / "a", config, tensors), getattr(naive_networks, kind)
    model = load_model(str(folder), torch.device("cpu"), dtype)
    for rows, length in ((2, 9), (3, 150)):
        ids, mask = some_input(rows, length)
        with torch.no_grad():
            pairs = [(model(ids).logits, naive(tensors, config, ids))]
            pairs.append(
                (model(ids, attention_mask=mask).logits, naive(tensors, config, ids, mask))
            )
        visible = mask.bool()
        if kind == "dream":  # its output at i - 1 predicts i; both have to be visible
            pairs = [(logits[:, 1:], wanted[:, :-1]) for logits, wanted in pairs]
            visible = visible[:, 1:] & visible[:, :-1]
        for (logits, wanted), seen in zip(pairs, (torch.ones_like(visible), visible), strict=True):
            assert torch.equal(logits[seen], wanted[seen])
