"""Whether a tokenizer is a model's own, told from its tokens and the model's config.json."""

from collections.abc import Mapping

from weft_rl.families.base import Config, Family


def misfit(
    config: Config, family: Family, tokens: Mapping[str, int], named: Mapping[str, str | None]
) -> str | None:
    """What shows that a tokenizer is of another model, in words; None when nothing does.

    tokens: ids by text; named: its eos_token, bos_token and pad_token, None for one it has not."""
    rows = family.sizes(config).vocab_size
    count = max(tokens.values(), default=-1) + 1
    # embeddings are padded to a round number of rows: LLaDA-8B has 115 more than it has tokens
    if not rows / 2 <= count <= rows:
        return f"the tokenizer has {count} tokens, the model {rows}"
    end = named["eos_token"]
    wanted = {
        "mask_token_id": [family.mask_token],
        "eos_token_id": [end],
        # published files have the end of text for either, whatever their tokenizer has
        "bos_token_id": [named["bos_token"], end],
        "pad_token_id": [named["pad_token"], end],
    }
    for name, (text, *others) in wanted.items():
        ids = config.get(name)
        if text is None or ids is None:
            continue
        listed = ids if isinstance(ids, list) else [ids]
        found = [tokens.get(each) for each in (text, *others) if each is not None]
        if not any(each in listed for each in found):
            return f"{name}={ids}, but the tokenizer has {text} as {tokens.get(text)}"
    return None
