"""LLaDAForMaskedLM against the published architecture written out, and its contract."""

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForMaskedLM

from weft_rl.models import LLaDAConfig, LLaDAForMaskedLM
from weft_rl.models.loading import fresh_model
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING

SMALL = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
    "rope_theta": 50.0,
    "mask_token_id": 39,
    "eos_token_id": 38,
    "eot_token_id": 37,
    "pad_token_id": 38,
    "bos_token_id": 36,
    "initializer_range": 0.3,
}


def small(**options):
    return fresh_model(LLaDAConfig(**SMALL, **options), 0).eval()


def some_ids(rows=2, length=7):
    return torch.randint(0, 36, (rows, length), generator=torch.Generator().manual_seed(5))


def plain_logits(weights, ids):
    """The published architecture for one row, by explicit matrix products."""

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weights[name]

    heads, width = 3, 8
    prefix = "model.transformer."
    x = weights[prefix + "wte.weight"][ids]
    for n in range(2):
        block = f"{prefix}blocks.{n}."
        normed = norm(x, block + "attn_norm.weight")
        parts = []
        for h in range(heads):
            rows = slice(h * width, (h + 1) * width)
            q, k, v = (normed @ weights[block + f"{p}_proj.weight"][rows].T for p in "qkv")
            turned = []
            for part in (q, k):
                out = part.clone()
                for position in range(len(ids)):
                    for i in range(width // 2):
                        angle = position * 50.0 ** (-2 * i / width)
                        a, b = part[position, i], part[position, i + width // 2]
                        out[position, i] = a * math.cos(angle) - b * math.sin(angle)
                        out[position, i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
                turned.append(out)
            parts.append((turned[0] @ turned[1].T / math.sqrt(width)).softmax(-1) @ v)
        x = x + torch.cat(parts, dim=1) @ weights[block + "attn_out.weight"].T
        normed = norm(x, block + "ff_norm.weight")
        gate = normed @ weights[block + "ff_proj.weight"].T
        up = normed @ weights[block + "up_proj.weight"].T
        x = x + (gate * gate.sigmoid() * up) @ weights[block + "ff_out.weight"].T
    return norm(x, prefix + "ln_f.weight") @ weights[prefix + "ff_out.weight"].T


def test_logits_equal_the_architecture_written_out():
    model, ids = small(), some_ids()
    with torch.no_grad():
        found = model(ids).logits
    for row in range(2):
        wanted = plain_logits(model.state_dict(), ids[row])
        assert_close(found[row], wanted, atol=1e-4, rtol=1e-4)


def test_learned_positions_are_added_to_the_tokens():
    model, ids = small(rope=False), some_ids()
    table = model.state_dict()["model.transformer.wpe.weight"]
    assert table.shape == (32, 24)
    # without a rotation, a model whose token at place i is (token + position i) and nothing else
    tokens = model.state_dict()["model.transformer.wte.weight"]
    moved = small(rope=False)
    with torch.no_grad():
        moved.model.transformer.wpe.weight.zero_()
        moved.model.transformer.wte.weight[:7] = tokens[ids[0]] + table[:7]
        wanted = moved(torch.arange(7)[None]).logits
        found = model(ids[:1]).logits
    assert_close(found, wanted)


def test_without_positions_the_order_does_not_matter():
    """With rotary or learned positions it does."""
    ids, order = some_ids(1), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    none, learned, rotary = small(rope=False), small(rope=False), small()
    with torch.no_grad():
        none.model.transformer.wpe.weight.zero_()
        for model, equal in ((none, True), (learned, False), (rotary, False)):
            found, wanted = model(ids[:, order]).logits, model(ids).logits[:, order]
            assert torch.allclose(found, wanted, atol=1e-4) == equal


@pytest.mark.parametrize("rope", [True, False])
def test_saved_and_loaded_by_the_auto_classes_it_is_the_same(tmp_path, rope):
    model, ids = small(rope=rope), some_ids()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert type(loaded) is LLaDAForMaskedLM
    read = AutoConfig.from_pretrained(tmp_path).to_dict() | {"_name_or_path": ""}
    assert read == model.config.to_dict()
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_upstreams_count_of_tensors_and_of_parameters():
    names = small().state_dict()
    assert len(names) == 3 + 9 * 2
    with torch.device("meta"):
        large = LLaDAForMaskedLM(LLaDAConfig())
    # 126464 * 4096 * 2 + 32 * (4 * 4096^2 + 3 * 4096 * 12288 + 2 * 4096) + 4096
    assert sum(p.numel() for p in large.parameters()) == 8_015_581_184


@pytest.mark.parametrize("rope", [True, False])
def test_left_padding_changes_nothing(rope):
    model, ids = small(rope=rope), some_ids(1)
    padded = torch.cat([torch.full((1, 3), 38), ids], dim=1)
    mask = torch.tensor([[0, 0, 0] + [1] * 7])
    with torch.no_grad():
        assert_close(
            model(padded, attention_mask=mask).logits[:, 3:],
            model(ids).logits,
            atol=1e-5,
            rtol=1e-4,
        )


def test_what_is_masked_is_not_seen():
    model, ids = small(), some_ids(1)
    mask = torch.ones_like(ids)
    mask[0, 2] = 0
    other = ids.clone()
    other[0, 2] = (ids[0, 2] + 1) % 36
    kept = [0, 1, 3, 4, 5, 6]
    with torch.no_grad():
        found = [model(row, attention_mask=mask).logits[:, kept] for row in (ids, other)]
    assert torch.equal(*found)


def test_the_head_only_where_it_is_asked_for():
    model, ids = small(), some_ids()
    with torch.no_grad():
        whole = model(ids).logits
        some = model(ids, logits_to_keep=torch.tensor([4, 1])).logits
        each = model(ids, logits_to_keep=torch.tensor([[0], [6]])).logits
        rows, places = torch.tensor([1, 0, 1]), torch.tensor([3, 5, 0])
        single = model(ids, logits_to_keep=(rows, places)).logits
    assert_close(some, whole[:, [4, 1]])
    assert_close(single, whole[rows, places])
    assert_close(each[:, 0], torch.stack([whole[0, 0], whole[1, 6]]))


def test_attention_is_not_causal():
    model, ids = small(), some_ids(1)
    other = ids.clone()
    other[0, -1] = (ids[0, -1] + 1) % 36
    with torch.no_grad():
        assert not torch.allclose(model(ids).logits[0, 0], model(other).logits[0, 0])


def test_gradient_checkpointing_changes_no_gradient():
    ids, gradients = some_ids(), []
    for checkpointing in (False, True):
        model = small().train()
        if checkpointing:
            getattr(model, f"{ACTIVATION_CHECKPOINTING}_enable")()
        model(ids).logits.logsumexp(-1).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *gradients))


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="max_position_embeddings=32"):
        small()(some_ids(1, 33))


def test_fresh_weights_depend_on_the_seed_alone():
    before = torch.random.get_rng_state()
    one, other = small(), fresh_model(LLaDAConfig(**SMALL), 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = small()
    assert all(map(torch.equal, one.parameters(), again.parameters()))
    assert not torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)
