"""Consistency of a tokenizer with a model's config.json."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from weft_rl.errors import UserError
from weft_rl.families import family_of, read_config
from weft_rl.families.base import Config, Family


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Check a tokenizer against its folder's config.json, and set a missing mask token.

    Raises UserError for token ids beyond the vocabulary, fewer tokens than half of it, and special
    tokens whose ids differ from the model's."""
    config = read_config(folder)
    family, _ = family_of(config, folder)
    problem = _mismatch(tokenizer, config, family)
    if problem is not None:
        raise UserError(f"model={folder}: {problem}; copy the model's own tokenizer files")
    # published configurations omit eot_token_id: the class default must match
    token = tokenizer.get_vocab().get(family.end_of_turn)
    expected = config.get("eot_token_id", family.end_of_turn_id)
    if token is not None and expected not in (None, token):
        raise UserError(
            f"model={folder}: eot_token_id={expected}, but {family.end_of_turn} is token {token}; "
            f'set "eot_token_id": {token} in its config.json'
        )
    if tokenizer.mask_token is None:
        tokenizer.mask_token = family.mask_token


def _mismatch(tokenizer: PreTrainedTokenizerBase, config: Config, family: Family) -> str | None:
    tokens, rows = tokenizer.get_vocab(), family.sizes(config).vocab_size
    count = max(tokens.values(), default=-1) + 1
    # embeddings are padded: LLaDA-8B has 115 more rows than tokens
    if not rows / 2 <= count <= rows:
        return f"the tokenizer has {count} tokens, the model {rows}"
    end = tokenizer.eos_token
    if config.get("eos_token_id") is not None and end is None:
        return f"eos_token_id={config['eos_token_id']}, but the tokenizer has no eos_token"
    candidates = {
        "mask_token_id": (family.mask_token,),
        "eos_token_id": (end,),
        # published files store the end of text here
        "bos_token_id": (tokenizer.bos_token, end),
        "pad_token_id": (tokenizer.pad_token, end),
    }
    for name, texts in candidates.items():
        ids = config.get(name)
        if texts[0] is None or ids is None:
            continue
        expected = ids if isinstance(ids, list) else [ids]
        if not any(tokens.get(text) in expected for text in texts if text is not None):
            return f"{name}={ids}, but the tokenizer has {texts[0]} as {tokens.get(texts[0])}"
    return None
