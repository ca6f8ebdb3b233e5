"""Tokenizers from `model=`, a checkpoint folder or a Hub id."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import transformers
from transformers import PreTrainedTokenizerBase

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.errors import UserError
from weft_rl.families import family_of, read_config
from weft_rl.families.a2d import MASK_TOKENS
from weft_rl.families.base import Config, Family
from weft_rl.io.safe_files import check_model_folder
from weft_rl.models.memory import is_out_of_memory


def load_tokenizer(place: str | Path, *, adapt: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer with the family's chat template and mask token, which is added if missing.

    adapt: also that of an autoregressive model. Raises UserError for token ids beyond the
    vocabulary, fewer tokens than half of it, and special tokens whose ids differ from the
    model's."""
    folder = resolve_checkpoint(str(place))
    check_model_folder(folder)
    is_model = (folder / "config.json").exists()  # an adapter folder has only a tokenizer
    config = read_config(folder, adapt=adapt) if is_model else {}
    family = family_of(config, folder)[0] if is_model else None
    with foreign_files(f"model={place}: cannot load the tokenizer"):
        # a remote class is never run: its files are those of a class of transformers
        name = "AutoTokenizer" if family is None else family.tokenizer or "AutoTokenizer"
        tokenizer = getattr(transformers, name).from_pretrained(folder, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(f"model={place}: no tokenizer; copy its tokenizer files there")
    if family is not None:
        problem = _tokenizer_problem(tokenizer, config, family)
        if problem is not None:
            raise UserError(f"model={folder}: {problem}")
        if family.mask_tokens:
            _set_mask_token(tokenizer, config["mask_token_id"], folder)
        elif tokenizer.mask_token is None:
            tokenizer.mask_token = family.mask_token
        if family.chat_template is not None:
            tokenizer.chat_template = family.chat_template
    return tokenizer


def _set_mask_token(tokenizer: PreTrainedTokenizerBase, mask_id: int, folder: Path) -> None:
    """Name the token of the model's mask id, added to the tokenizer if it is the next free one."""
    names = {token: text for text, token in tokenizer.get_vocab().items()}
    if mask_id in names:
        tokenizer.mask_token = names[mask_id]
        return
    tokenizer.add_special_tokens({"mask_token": MASK_TOKENS[0]})
    if tokenizer.mask_token_id != mask_id:
        raise UserError(
            f"model={folder}: mask_token_id={mask_id}, but the tokenizer has no such token and "
            f"{MASK_TOKENS[0]} would be {tokenizer.mask_token_id}; copy the model's own tokenizer "
            "files"
        )


def _tokenizer_problem(
    tokenizer: PreTrainedTokenizerBase, config: Config, family: Family
) -> str | None:
    tokens, rows = tokenizer.get_vocab(), family.sizes(config).vocab_size
    fix, count = "copy the model's own tokenizer files", max(tokens.values(), default=-1) + 1
    # embeddings are padded: LLaDA-8B has 115 more rows than tokens
    if not rows / 2 <= count <= rows:
        return f"the tokenizer has {count} tokens, the model {rows}; {fix}"
    end = tokenizer.eos_token
    if config.get("eos_token_id") is not None and end is None:
        return f"eos_token_id={config['eos_token_id']}, but the tokenizer has no eos_token; {fix}"
    masks: list[str | None] = [family.mask_token]
    if family.mask_tokens:  # without a declared one, any of the names
        added = tokenizer.get_added_vocab()
        masks = [tokenizer.mask_token]
        if tokenizer.mask_token is None:
            masks = [text for text in family.mask_tokens if text in added] or [None]
    candidates = {
        "mask_token_id": masks,
        "eos_token_id": (end,),
        # published files store the end of text here
        "bos_token_id": (tokenizer.bos_token, end),
        "pad_token_id": (tokenizer.pad_token, end),
    }
    for name, (token, *others) in candidates.items():
        ids = config.get(name)
        allowed = ids if isinstance(ids, list) else [ids]
        possible = [tokens.get(text) for text in (token, *others) if text is not None]
        if token is not None and ids is not None and not set(possible) & set(allowed):
            return f"{name}={ids}, but the tokenizer has {token} as {tokens.get(token)}; {fix}"
    # published configurations omit eot_token_id: the class default must match
    turn = tokens.get(family.end_of_turn)
    expected = config.get("eot_token_id", family.end_of_turn_id)
    if turn is not None and expected not in (None, turn):
        return (
            f"eot_token_id={expected}, but {family.end_of_turn} is token {turn}; "
            f'set "eot_token_id": {turn} in its config.json'
        )
    return None


@contextmanager
def foreign_files(problem: str) -> Generator[None]:
    """Convert library exceptions, of any type, into UserError, except out of memory."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        name = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{problem}: {name}{' '.join(str(error).split())[:300]}") from error
