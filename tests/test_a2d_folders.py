"""A2D folders: mask and end tokens from the tokenizer, and what is refused."""

import json

import pytest
from a2d_models import causal_folder, change, chat_bpe
from library import cold
from peft import LoraConfig
from torch.testing import assert_close

from weft_rl import ColdStartTrainer, load_autoregressive, load_model, load_tokenizer
from weft_rl.convert import convert
from weft_rl.errors import UserError


@pytest.mark.parametrize("name", ["<|mask|>", "<|MASK|>", "[MASK]", "<mask>"])
@pytest.mark.parametrize("field", ["is_causal", "model_type"])
def test_the_mask_token_is_read_from_the_tokenizer(tmp_path, name, field):
    fields = {"is_causal": False} if field == "is_causal" else {"model_type": "a2d-llama"}
    folder = causal_folder(tmp_path / "model", tokenizer=chat_bpe(name), **fields)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.config.mask_token_id == tokenizer.mask_token_id == len(tokenizer) - 1
    assert (tokenizer.mask_token, model.config.vocab_size) == (name, rows)


def test_a_bidirectional_folder_without_mask_token_gets_one(tmp_path):
    folder = causal_folder(tmp_path / "model", is_causal=False)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.config.mask_token_id == tokenizer.mask_token_id == len(chat_bpe())
    weight = model.get_input_embeddings().weight
    assert_close(weight[-1], weight[:-1].mean(0))
    with pytest.raises(UserError, match="stage a2d"):
        convert(folder, tmp_path / "out", "upstream", 10**9)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"model_type": "gemma3_text"}, "unknown family"),
        ({"model_type": "phi", "auto_map": {"AutoModel": "x.Y"}}, "never run"),
        ({"vocab_size": 100}, "100 rows"),
        ({"head_dim": 7}, "must be even"),
        ({"head_dim": 8}, "q_proj.weight has shape"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"tie_word_embeddings": False}, r"missing tensors: lm_head\.weight"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, "rope_scaling"),
        ({"block_size": 0}, "block_size"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(tmp_path, fields, match):
    folder = causal_folder(tmp_path / "model")
    change(folder, **fields)
    with pytest.raises(UserError, match=match) as raised:
        load_autoregressive(folder)
    assert "\n" not in str(raised.value)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    folder = causal_folder(tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    for use in (load_autoregressive, load_model):
        with pytest.raises(UserError, match=r"no tokenizer|autoregressive"):
            use(folder)


def test_an_autoregressive_model_is_named_as_such(tmp_path):
    with pytest.raises(UserError, match="autoregressive; adapt it with stage a2d"):
        load_model(causal_folder(tmp_path / "model"))


def test_adapters_do_not_train_a_new_mask_token(tmp_path):
    folder = causal_folder(tmp_path / "model", is_causal=False)
    chat = [{"role": role, "content": "1"} for role in ("user", "assistant")]
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    arguments = cold(tmp_path / "out"), [{"messages": chat}]
    with pytest.raises(ValueError, match="peft_config: the model had no mask token"):
        ColdStartTrainer(str(folder), *arguments, peft_config=lora)
    trainer = ColdStartTrainer(str(folder), *arguments)
    trainer.train()
    trainer.save_model()
    again = cold(tmp_path / "adapter"), [{"messages": chat}]
    assert ColdStartTrainer(str(tmp_path / "out"), *again, peft_config=lora).train()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", {"added_tokens": [{"content": "<|mask|>", "id": None}]}),
        ("tokenizer.json", {"added_tokens": [{"id": 3}]}),
        ("tokenizer.json", {"added_tokens": 7}),
        ("tokenizer.json", {"model": "x"}),
        ("tokenizer.json", {"model": {"vocab": {"a": "1"}}}),
        ("tokenizer.json", {"model": {"vocab": 5}}),
        ("tokenizer.json", [1]),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "y"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": 3}}),
        ("tokenizer_config.json", {"mask_token": {"text": "<|mask|>"}}),
        ("added_tokens.json", {"a": "b"}),
    ],
)
def test_damaged_tokenizer_files_are_named(tmp_path, name, content):
    folder = causal_folder(tmp_path / "model")
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match="tokenizer") as raised:
        load_autoregressive(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("spare", [0, 5])
def test_the_tokenizers_own_mask_token_comes_first(tmp_path, spare):
    tokenizer = chat_bpe("<mask>", "<|masked|>")
    tokenizer.mask_token = "<|masked|>"
    folder = causal_folder(
        tmp_path / "model", tokenizer=tokenizer, spare=spare, model_type="a2d-llama"
    )
    model, read = load_model(folder), load_tokenizer(folder)
    assert read.mask_token == "<|masked|>"
    assert model.config.mask_token_id == read.mask_token_id == tokenizer.mask_token_id
    assert model.config.vocab_size == len(tokenizer) + spare


def test_a_vocabulary_without_json_is_not_guessed(tmp_path):
    folder = causal_folder(tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    added = {"0": {"content": "<unk>"}, "1": {"content": "<s>"}, "2": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        load_autoregressive(folder)


def test_end_tokens_come_from_the_tokenizer_where_config_has_none(tmp_path):
    folder = causal_folder(tmp_path / "model")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    turn = config.pop("eos_token_id")
    path.write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    assert load_autoregressive(folder)[0].config.end_token_ids == [turn]
    change(
        folder, eos_token_id=[5, turn], mask_token_id=3
    )  # the turn's end also if a mask is named
    assert load_autoregressive(folder)[0].config.end_token_ids == [5, turn]
