"""LLaDA's and Dream's contract as transformers models; test_parity.py has their logits."""

import pytest
import torch
from adapters import load
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForMaskedLM
from upstream_checkpoint import dream_folder

from weft_rl.families.base import SIZE_FIELDS
from weft_rl.families.dream import DREAM
from weft_rl.models import DreamConfig, DreamForMaskedLM, LLaDAConfig, LLaDAForMaskedLM
from weft_rl.models.loading import fresh_model
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING

SMALL = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
SMALL |= {"intermediate_size": 20, "max_position_embeddings": 32, "rope_theta": 50.0}
SMALL |= {"mask_token_id": 39, "eos_token_id": 38, "eot_token_id": 37, "pad_token_id": 38}
SMALL |= {"bos_token_id": 36, "initializer_range": 0.3}


def small(**options):
    return fresh_model(LLaDAConfig(**SMALL, **options), 0).eval()


def some_ids(rows=2, length=7):
    return torch.randint(3, 36, (rows, length), generator=torch.Generator().manual_seed(5))


@pytest.fixture(params=["rotary", "learned", "dream"])
def model(request, tmp_path):
    if request.param == "dream":
        return load(dream_folder(tmp_path / "dream")[0])
    return small(rope=request.param == "rotary")


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
        assert_close(model(ids[:1]).logits, moved(torch.arange(7)[None]).logits)
        # and with no positions at all the order does not matter
        ids, order = torch.arange(7)[None], torch.tensor([3, 0, 6, 1, 5, 2, 4])
        assert_close(moved(ids[:, order]).logits, moved(ids).logits[:, order], atol=1e-4, rtol=0)


def test_saved_and_loaded_by_the_auto_classes_it_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    loaded, ids = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved"), some_ids()
    assert type(loaded) is type(model) in (LLaDAForMaskedLM, DreamForMaskedLM)
    read = AutoConfig.from_pretrained(tmp_path / "saved").to_dict()
    assert read | {"_name_or_path": ""} == model.config.to_dict() | {"_name_or_path": ""}
    for again in (loaded, load(tmp_path / "saved")):
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_counts_of_tensors_and_of_parameters():
    assert len(small().state_dict()) == 3 + 9 * 2
    sizes = {name: getattr(DREAM.published_sizes, name) for name in SIZE_FIELDS}
    with torch.device("meta"):
        llada, dream = LLaDAForMaskedLM(LLaDAConfig()), DreamForMaskedLM(DreamConfig(**sizes))
    # 126464 * 4096 * 2 + 32 * (4 * 4096^2 + 3 * 4096 * 12288 + 2 * 4096) + 4096
    assert sum(p.numel() for p in llada.parameters()) == 8_015_581_184
    # 152064 * 3584 * 2 + 28 * (2 * 3584^2 + 2 * 3584 * 512 + 3 * 3584 * 18944 + 3584 + 2 * 512
    # + 2 * 3584) + 3584
    assert DREAM.count(DREAM.published_sizes) == 7_615_616_512
    assert sum(p.numel() for p in dream.parameters()) == 7_615_616_512


def test_padding_changes_nothing_and_is_not_seen(model):
    ids, mask = some_ids(1), torch.tensor([[0, 0, 0] + [1] * 7])
    with torch.no_grad():
        for pad in (1, 38):
            padded = torch.cat([torch.full((1, 3), pad), ids], dim=1)
            found = model(padded, attention_mask=mask).logits[:, 3:]
            assert_close(found, model(ids).logits, atol=1e-5, rtol=1e-4)


def test_the_head_only_where_it_is_asked_for(model):
    ids, rows, places = some_ids(), torch.tensor([1, 0, 1, 1]), torch.tensor([3, 5, 0, 0])
    with torch.no_grad():
        whole = model(ids).logits
        some = model(ids, logits_to_keep=torch.tensor([4, 0])).logits
        each = model(ids, logits_to_keep=torch.tensor([[0], [6]])).logits
        single = model(ids, logits_to_keep=(rows, places)).logits
    assert_close(some, whole[:, [4, 0]])
    assert_close(single, whole[rows, places])
    assert_close(each[:, 0], torch.stack([whole[0, 0], whole[1, 6]]))


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
    one, other, again = small(), fresh_model(LLaDAConfig(**SMALL), 1), small()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(map(torch.equal, one.parameters(), again.parameters()))
    assert not torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)
