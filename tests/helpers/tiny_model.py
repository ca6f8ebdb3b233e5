"""A small untrained LLaDA with the toy tokenizer, in a folder."""

from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import BaseConfig, tiny_config, tiny_tokenizer


def write_model(folder, **options):
    """Write the model with changed options of its config; returns the folder."""
    size = BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    fresh_model(LLaDAConfig(**tiny_config(size).to_dict() | options), 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
