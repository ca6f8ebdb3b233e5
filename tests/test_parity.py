"""Logits equal to the published networks' formulas, bit by bit, in float32 and bfloat16.

The published code itself gives the same bits on these shapes."""

import naive_networks
import pytest
import torch
from upstream_checkpoint import (
    DREAM_CONFIG,
    LLADA_CONFIG,
    llada_shapes,
    random_tensors,
    write_folder,
)

from weft_rl.families.dream import DREAM
from weft_rl.models.loading import load_model

CPU = torch.device("cpu")
ROWS = {"vocab_size": 200}
LLADA_SHAPES = [
    {},
    {"d_model": 128, "n_heads": 2, "n_kv_heads": 2, "rope_theta": 500000.0, "n_layers": 4},
    {"d_model": 64, "n_heads": 8, "n_kv_heads": 8, "rope_theta": 10000.0},
]
DREAM_SHAPES = [
    {},
    {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 1e6},
    {"hidden_size": 64, "num_key_value_heads": 4, "rope_theta": 10000.0, "num_hidden_layers": 4},
]
DTYPES = [torch.float32, torch.bfloat16]


def some_input(rows, length):
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(2, 200, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, : row * length // 5] = 0
    return ids, mask


def moderate(tensors):
    return {name: 0.3 * t if t.dim() > 1 else t for name, t in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LLADA_SHAPES)
def test_llada(tmp_path, shape, dtype):
    config = LLADA_CONFIG | ROWS | {"embedding_size": 200, "max_sequence_length": 160} | shape
    tensors = moderate(random_tensors(llada_shapes(config), dtype))
    model = load_model(str(write_folder(tmp_path / "a", config, tensors)), CPU, dtype)
    for rows, length in ((2, 9), (3, 150)):
        ids, mask = some_input(rows, length)
        with torch.no_grad():
            assert torch.equal(model(ids).logits, naive_networks.llada(tensors, config, ids))
            found = model(ids, attention_mask=mask).logits[mask.bool()]
            wanted = naive_networks.llada(tensors, config, ids, mask)[mask.bool()]
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", DREAM_SHAPES)
def test_dream(tmp_path, shape, dtype):
    """Under left padding too, where its own positions count the visible tokens."""
    config = DREAM_CONFIG | ROWS | {"max_position_embeddings": 160} | shape
    shapes = {spec.upstream: spec.shape for spec in DREAM.tensors(DREAM.sizes(config))}
    tensors = moderate(random_tensors(shapes, dtype))
    model = load_model(str(write_folder(tmp_path / "a", config, tensors)), CPU, dtype)
    for rows, length in ((2, 9), (3, 150)):
        ids, mask = some_input(rows, length)
        with torch.no_grad():
            told = naive_networks.dream(tensors, config, ids)
            assert torch.equal(model(ids).logits[:, 1:], told[:, :-1])
            told = naive_networks.dream(tensors, config, ids, mask)
            found = model(ids, attention_mask=mask).logits[:, 1:]
        # a place whose own or whose source is padding says nothing
        said = (mask[:, 1:] * mask[:, :-1]).bool()
        assert torch.equal(found[said], told[:, :-1][said])
