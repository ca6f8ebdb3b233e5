"""Family a2d: autoregressive networks without a causal mask, and the mask token they get."""

import json
import re

import pytest
import torch
from a2d_models import CLASSES, causal_folder, chat_bpe
from library import CHATS, cold
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from weft_rl import ColdStartTrainer, load_autoregressive, load_model, load_tokenizer
from weft_rl.cli import execute
from weft_rl.config.schema import AUTOREGRESSIVE_MODELS
from weft_rl.convert import convert
from weft_rl.convert import main as convert_main
from weft_rl.errors import UserError
from weft_rl.families import AUTOREGRESSIVE, PUBLISHED
from weft_rl.models import A2DLlamaConfig, A2DLlamaForMaskedLM
from weft_rl.sample import find_checkpoint

KINDS = [(kind, tied) for kind in CLASSES for tied in (True, False)]


def ids(rows=2, length=9):
    return torch.randint(1, 200, (rows, length), generator=torch.Generator().manual_seed(1))


def causal(length, device):
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def masked(mask):
    """A (B, L) mask as a 4D one that replaces the causal mask."""
    visible = mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)


@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_logits_are_those_of_transformers_with_a_full_mask(tmp_path, kind, tied):
    folder = causal_folder(tmp_path / "model", kind, tied=tied)
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model, _ = load_autoregressive(folder)
    x, rows = ids(), original.config.vocab_size
    mask = torch.ones_like(x)
    mask[0, :3] = 0
    with torch.no_grad():
        full = original(x, attention_mask=masked(torch.ones_like(x))).logits
        assert_close(model(x).logits[..., :rows], full, atol=1e-5, rtol=0)
        positions = torch.tensor([8, 0, 4])
        assert_close(model(x, None, positions).logits[..., :rows], full[:, positions])
        some = torch.tensor([0, 1, 1]), torch.tensor([5, 2, 8])
        assert_close(model(x, None, some).logits[..., :rows], full[some])
        padded = original(x, attention_mask=masked(mask)).logits[0, 3:]
        assert_close(model(x, mask).logits[0, 3:, :rows], padded, atol=1e-4, rtol=0)
        model.attention_pattern = causal
        assert_close(model(x).logits[..., :rows], original(x).logits, atol=1e-5, rtol=0)
        assert not torch.allclose(full, original(x).logits, atol=0.1)


@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_layouts_have_the_same_weights(tmp_path, kind, tied):
    model, tokenizer = load_autoregressive(causal_folder(tmp_path / "model", kind, tied=tied))
    saved = tmp_path / "a2d"
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    there = convert(saved, tmp_path / "there", "transformers", 10**9)
    back = convert(tmp_path / "there", tmp_path / "back", "upstream", 10**9)
    assert there.digest == back.digest
    for name in ("a2d", "there", "back"):
        read = load_model(tmp_path / name)
        assert read.config.model_type == f"a2d-{kind}"
        assert read.config.end_token_ids == [tokenizer.eos_token_id]
        assert torch.equal(read(ids()).logits, model(ids()).logits)
        mask = load_tokenizer(tmp_path / name).mask_token_id
        assert mask == read.config.mask_token_id == tokenizer.mask_token_id
    plain = json.loads((tmp_path / "there" / "config.json").read_text())
    assert (plain["model_type"], plain["is_causal"]) == (kind, False)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 1, 5])
def test_a_new_mask_token_starts_as_the_mean_of_the_others(tmp_path, tied, spare):
    folder = causal_folder(tmp_path / "model", tied=tied, spare=spare)
    model, tokenizer = load_autoregressive(folder)
    count = len(chat_bpe())
    assert tokenizer.mask_token == "<|mask|>"
    assert tokenizer.mask_token_id == model.config.mask_token_id == count
    assert model.config.vocab_size == count + max(spare, 1)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert_close(layer.weight[count], layer.weight[:count].mean(0))


@pytest.mark.parametrize(
    ("masks", "declared", "mask_id", "shown"),
    [
        (["<|mask|>"], None, 40, "<|mask|>"),
        (["<|mask|>"], "<|mask|>", 40, "<|mask|>"),
        (["<hole>"], "<hole>", 40, "<hole>"),
        (["<|mask|>", "<hole>"], "<hole>", -2, "<hole>"),
        (["<|mask|>", "[MASK]"], None, 40, "<|mask|>"),
        (["<|mask|>", "[MASK]"], None, -1, None),
        (["<|mask|>", "[MASK]"], None, -2, None),
        (["<hole>"], "<hole>", -1, None),
        ([], None, 40, None),
    ],
)
def test_the_ids_of_the_mask_agree(tmp_path, masks, declared, mask_id, shown):
    tokenizer = chat_bpe(*masks)
    if declared:
        tokenizer.mask_token = declared
    count = len(tokenizer)
    ids = {"mask_token_id": mask_id % count, "is_causal": False}
    folder = causal_folder(tmp_path / "model", tokenizer=tokenizer, **ids)
    if shown is None:
        assert load_tokenizer(folder).mask_token_id == mask_id % count
    else:
        line = f"mask_token_id={mask_id % count}, but the tokenizer has {shown} as "
        with pytest.raises(
            UserError, match=re.escape(f"{line}{count - len(masks) + masks.index(shown)}; ")
        ):
            load_tokenizer(folder)


def test_end_tokens_of_generation_config_count(tmp_path):
    folder = causal_folder(tmp_path / "model")
    turn, text = load_tokenizer(folder, adapt=True).convert_tokens_to_ids(
        ["<|im_end|>", "<|endoftext|>"]
    )
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": [turn, text]}))
    model, tokenizer = load_autoregressive(folder)
    assert model.config.end_token_ids == [text, turn]
    model.save_pretrained(tmp_path / "a2d")
    tokenizer.save_pretrained(tmp_path / "a2d")
    assert load_model(tmp_path / "a2d").config.end_token_ids == [text, turn]
    assert model.config.pad_token_id == turn


def test_a_shifted_model_predicts_the_next_token(tmp_path):
    folder = causal_folder(tmp_path / "model")
    model, _ = load_autoregressive(folder)
    shifted, tokenizer = load_autoregressive(folder, logit_shift=True)
    x = ids()
    assert_close(shifted(x).logits[:, 1:], model(x).logits[:, :-1])
    shifted.save_pretrained(tmp_path / "shifted")
    tokenizer.save_pretrained(tmp_path / "shifted")
    assert torch.equal(load_model(tmp_path / "shifted")(x).logits, shifted(x).logits)
    with pytest.raises(UserError, match="logit_shift=True"):
        load_autoregressive(tmp_path / "shifted")


def test_blocks_see_themselves_and_earlier_blocks():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = A2DLlamaConfig(vocab_size=200, mask_token_id=5, pad_token_id=0, block_size=4, **sizes)
    model = A2DLlamaForMaskedLM(config).eval()
    x = ids(1, 10)
    for changed, first_that_sees_it in ((0, 0), (3, 0), (4, 4), (7, 4), (9, 8)):
        y = x.clone()
        y[0, changed] = 199
        differs = (model(y).logits != model(x).logits).any(-1)[0]
        assert differs.nonzero()[0].item() == first_that_sees_it
    # padding moves the blocks along
    left = torch.cat([torch.zeros(1, 3, dtype=torch.long), x], dim=1)
    mask = (left > 0).long()
    assert_close(model(left, mask).logits[:, 3:], model(x).logits)


@pytest.mark.parametrize("name", sorted(PUBLISHED | AUTOREGRESSIVE))
def test_short_names_are_those_of_the_hub(tmp_path, monkeypatch, name):
    folder = causal_folder(tmp_path / "model", tokenizer=chat_bpe("<|mask|>"), is_causal=False)
    asked = []

    def snapshot(repo, **_):
        asked.append(repo)
        return str(folder)

    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    load_model(name)
    assert execute("convert", convert_main, [name, f"out={tmp_path / 'out'}"]) == 0
    assert find_checkpoint(name).folder == folder
    assert asked == 3 * [(PUBLISHED | AUTOREGRESSIVE)[name]]


def test_sources_of_convert_that_are_unavailable(tmp_path, capsys):
    for source in ("./none", "none.gguf", "some/model"):
        assert execute("convert", convert_main, [source, f"out={tmp_path / 'out'}"]) == 2
        assert f"source={source}: " in capsys.readouterr().err


def test_the_repeated_tied_head_is_ignored(tmp_path):
    folder = causal_folder(tmp_path / "model", tokenizer=chat_bpe("<|mask|>"), is_causal=False)
    expected = load_model(folder)(ids()).logits
    tensors = load_file(folder / "model.safetensors")
    head = {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}
    save_file(tensors | head, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(load_model(folder)(ids()).logits, expected)
    names = dict.fromkeys(tensors, "model-1.safetensors") | dict.fromkeys(
        head, "model-2.safetensors"
    )
    save_file(tensors, folder / "model-1.safetensors", {"format": "pt"})
    save_file(head, folder / "model-2.safetensors", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert torch.equal(load_model(folder)(ids()).logits, expected)


def test_a_network_of_an_autoregressive_folder_trains_without_its_tokenizer(tmp_path):
    model, tokenizer = load_autoregressive(causal_folder(tmp_path / "model"))
    before = model.get_input_embeddings().weight.detach().clone()
    made = ColdStartTrainer(model, cold(tmp_path / "out", recipe="sft"), CHATS)
    assert made.processing_class.get_vocab() == tokenizer.get_vocab()
    made.train()
    made.save_model()
    trained = load_model(tmp_path / "out").get_input_embeddings().weight
    assert not torch.equal(trained[tokenizer.mask_token_id], before[tokenizer.mask_token_id])
    causal_model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="stage a2d"):
        ColdStartTrainer(causal_model, cold(tmp_path / "out"), CHATS)


def test_the_card_of_a_model_adapted_from_the_hub(tmp_path, monkeypatch):
    folder = causal_folder(tmp_path / "model", "qwen3")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    model, _ = load_autoregressive("qwen3_0_6b")
    made = ColdStartTrainer(model, cold(tmp_path / "out", recipe="sft"), CHATS)
    made.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "base_model: Qwen/Qwen3-0.6B" in card


def test_names_of_autoregressive_models_are_options():
    assert {*AUTOREGRESSIVE_MODELS} == {*AUTOREGRESSIVE}


def test_a_configuration_without_ids_can_be_made():
    assert A2DLlamaConfig().mask_token_id is None
    with pytest.raises(ValueError, match="must differ"):
        A2DLlamaConfig(mask_token_id=3, pad_token_id=3)


def test_eager_attention_has_the_same_blocks():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    options = {"vocab_size": 200, "mask_token_id": 5, "block_size": 2, **sizes}
    torch.manual_seed(0)
    model = A2DLlamaForMaskedLM(A2DLlamaConfig(**options, initializer_range=0.5)).eval()
    logits = model(ids(1, 10)).logits
    model.set_attn_implementation("eager")
    assert_close(model(ids(1, 10)).logits, logits, atol=1e-4, rtol=1e-4)
