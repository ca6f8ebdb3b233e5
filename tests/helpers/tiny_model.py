"""A small untrained LLaDA with the toy tokenizer, in a folder."""

from bpe import llada_bpe

from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import BaseConfig, tiny_config, tiny_tokenizer


def write_model(folder, **options):
    """Write the model with changed options of its config; returns the folder."""
    size = BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    fresh_model(LLaDAConfig(**tiny_config(size).to_dict() | options), 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_bpe_model(folder):
    """Write a model with a byte-level vocabulary, which encodes any text; returns the folder."""
    tokenizer = llada_bpe()
    names = ("mask_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    ids["eot_token_id"] = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    write_model(folder, vocab_size=len(tokenizer), **ids)
    tokenizer.save_pretrained(folder)
    return folder
