"""Tokenizers from local folders: special ids, chat form, and those of another vocabulary."""

import json

import pytest
import torch
from adapters import change_config as change_file
from bpe import llada_bpe
from refusals import refusal
from upstream_checkpoint import dream_with_tokenizer, with_tokenizer

from weft_rl.config.schema import BaseConfig
from weft_rl.errors import UserError
from weft_rl.families import read_config
from weft_rl.families.dream import DREAM
from weft_rl.families.llada import LLADA
from weft_rl.models import DreamConfig, LLaDAConfig
from weft_rl.models.loading import fresh_model, load_tokenizer
from weft_rl.models.toy import SYMBOLS, tiny_config


def change_config(folder, **changes):
    change_file(folder, "config.json", **changes)


@pytest.fixture
def folder(tmp_path):
    """A tiny checkpoint whose tokenizer is like upstream's: no mask token set, its own template."""
    fresh_model(tiny_config(BaseConfig()), 0).save_pretrained(tmp_path / "model")
    return with_tokenizer(tmp_path / "model")


def test_no_turn_that_nobody_asked_for(folder):
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.mask_token_id == read_config(folder)["mask_token_id"]
    turns = [{"role": "user", "content": " Sort: 21 "}, {"role": "assistant", "content": "12"}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert whole == f"{prompt}12<|eot_id|>"
    assert prompt == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nSort: 21<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    # a prefix in tokens as well, and one begin token
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in (whole, prompt)]
    assert ids[0][: len(ids[1])] == ids[1]
    assert ids[0].count(tokenizer.bos_token_id) == 1


def test_a_tokenizer_of_another_vocabulary(folder):
    change_config(folder, vocab_size=2 * len(SYMBOLS))
    load_tokenizer(str(folder))  # padded, if by much
    change_config(folder, vocab_size=2 * len(SYMBOLS) + 1)
    with pytest.raises(UserError, match=rf"{len(SYMBOLS)} .* {2 * len(SYMBOLS) + 1}"):
        load_tokenizer(str(folder))
    llada_bpe().save_pretrained(folder)
    change_config(folder, vocab_size=len(SYMBOLS))
    with pytest.raises(UserError, match=rf" {len(SYMBOLS)}"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize(
    ("name", "id"), [("mask_token", 0), ("eos_token", 1), ("bos_token", 2), ("pad_token", 5)]
)
def test_special_ids_that_differ(folder, name, id):
    if name == "pad_token":
        with_own_padding(folder)
    change_config(folder, **{f"{name}_id": 7})
    message = refusal(load_tokenizer, str(folder))
    assert (f"{name}_id=7" in message, f" as {id}" in message) == (True, True)


def with_own_padding(folder):
    """The tokenizer's first header is called <|pad|> and pads."""
    header = "<|start_header_id|>user<|end_header_id|>\\n\\n"
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        path.write_text(path.read_text().replace(header, "<|pad|>"))
    change_file(folder, "tokenizer_config.json", pad_token="<|pad|>")


def test_published_files_have_the_end_of_text_for_other_special_tokens(folder):
    """Dream's bos_token_id is that of <|endoftext|>, and a Dream with padding of its own says the
    same of pad_token_id, whatever their tokenizers have for either."""
    with_own_padding(folder)
    end = read_config(folder)["eos_token_id"]
    change_config(folder, bos_token_id=end, pad_token_id=end)
    tokenizer = load_tokenizer(str(folder))
    assert end not in (tokenizer.bos_token_id, tokenizer.pad_token_id)


def test_turns_that_would_never_end(folder):
    """Without eot_token_id, as published, the default is meant, which this vocabulary has not."""
    config = read_config(folder)
    end = config.pop("eot_token_id")
    for wrong in ({}, {"eot_token_id": 7}):
        (folder / "config.json").write_text(json.dumps(config | wrong))
        assert f'"eot_token_id": {end}' in refusal(load_tokenizer, str(folder))
    change_config(folder, eot_token_id=None)  # said not to have one
    assert load_tokenizer(str(folder)).get_vocab()["<|eot_id|>"] == end


def test_published_configurations_need_not_name_the_end_of_a_turn(folder):
    """LLaDA-8B's has no eot_token_id, and its tokenizer the default as <|eot_id|>."""
    assert LLADA.end_of_turn_id == LLaDAConfig().eot_token_id == 126348
    assert DREAM.end_of_turn_id == DreamConfig().eot_token_id
    path, tokens = folder / "config.json", folder / "tokenizer.json"
    config, content = json.loads(path.read_text()), json.loads(tokens.read_text())
    own = config.pop("eot_token_id")
    path.write_text(json.dumps(config | {"vocab_size": 126464}))
    (token,) = [token for token in content["added_tokens"] if token["content"] == "<|eot_id|>"]
    assert token["id"] == own
    content["model"]["vocab"]["<|eot_id|>"] = token["id"] = 126348
    tokens.write_text(json.dumps(content))
    assert load_tokenizer(str(folder)).get_vocab()["<|eot_id|>"] == 126348


def test_a_folder_without_one(tmp_path):
    fresh_model(tiny_config(BaseConfig()), 0).save_pretrained(tmp_path / "model")
    assert "tokenizer" in refusal(load_tokenizer, str(tmp_path / "model"))
    assert torch.get_default_dtype() == torch.float32


def test_dreams_tokenizer_is_qwens(tmp_path):
    """Published with a remote class, which is never run, for the files of Qwen2's class."""
    folder, vocabulary = dream_with_tokenizer(tmp_path / "dream")
    change_file(folder, "tokenizer_config.json", mask_token=None)
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.encode("ab", add_special_tokens=False) == [vocabulary["ab"]]
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("<|mask|>", 0)
