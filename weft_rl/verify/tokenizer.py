"""Checks of a tokenizer and its chat template."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from weft_rl.data.prompts import chat_prompt, tagged_answer
from weft_rl.data.text import TextEncoder
from weft_rl.models.configuration import end_tokens
from weft_rl.verify.probes import MIXED, probes, unknown_tokens
from weft_rl.verify.report import Report, quoted

_TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


def describe(report: Report, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Report vocabulary, special tokens, and what happens to texts. config: the network's."""
    rows = int(getattr(config, "vocab_size", 0))
    report.fact("class", type(tokenizer).__name__)
    report.fact("tokens", f"{len(tokenizer):,}; the embedding has {rows:,} rows")
    mask_id = getattr(config, "mask_token_id", None)
    report.fact("mask", _token(tokenizer, mask_id))
    if len(tokenizer) > rows:
        report.problem(f"the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows")
    ends = end_tokens(config)
    report.fact("end", ", ".join(_token(tokenizer, each) for each in ends) or "none")
    pad = _token(tokenizer, tokenizer.pad_token_id)
    report.fact("padding", f"{pad}, on the {tokenizer.padding_side}")
    if mask_id is None or mask_id != tokenizer.mask_token_id:
        found = _token(tokenizer, tokenizer.mask_token_id)
        report.problem(f"mask_token_id={mask_id} in config.json, the tokenizer has {found}")
    if not ends:
        report.problem("config.json has no eos_token_id in the vocabulary: nothing ends a text")
    _round_trip(report, tokenizer)
    if tokenizer.mask_token is not None:
        _mask_in_text(report, tokenizer, tokenizer.mask_token)
    encoder = TextEncoder(tokenizer)
    lengths = [f"{tag} {len(ids)}" for tag, ids in zip(_TAGS, encoder.texts(_TAGS), strict=True)]
    report.fact("answer tags", f"tokens: {', '.join(lengths)}")


def _token(tokenizer: PreTrainedTokenizerBase, token_id: int | None) -> str:
    if token_id is None:
        return "none"
    text = tokenizer.convert_ids_to_tokens([token_id])[0] if token_id < len(tokenizer) else None
    return f"{text!r} ({token_id})" if text is not None else f"{token_id}, not in the tokenizer"


def _round_trip(report: Report, tokenizer: PreTrainedTokenizerBase) -> None:
    """Encode and decode a text with digits, accents, an emoji and code."""
    (ids,) = TextEncoder(tokenizer).texts([MIXED])
    unknown, length = (
        unknown_tokens(tokenizer, MIXED),
        f"{len(MIXED)} characters, {len(ids)} tokens",
    )
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if unknown:
        report.fact("round trip", f"no: {length}, {unknown} of them unknown")
        report.warn(
            f"{unknown} of {len(ids)} tokens are unknown in a text with accents, emoji and code"
        )
    elif text != MIXED:
        report.fact("round trip", f"no: {quoted(MIXED)} becomes {quoted(str(text))}")
        report.warn("decoding changes the encoded text")
    else:
        report.fact("round trip", f"exact: {length} (digits, accents, emoji, code)")


def _mask_in_text(report: Report, tokenizer: PreTrainedTokenizerBase, mask: str) -> None:
    """Encode a user's text that spells the mask token."""
    try:
        (ids,) = TextEncoder(tokenizer).texts([f"a {mask} b"])
    except ValueError as error:
        report.fact("mask in text", "refused")
        report.warn(f"{mask} in a user's text: {error}; texts with it are refused")
        return
    is_text = tokenizer.mask_token_id not in ids
    report.fact("mask in text", "stays text" if is_text else "becomes the mask token")
    if not is_text:
        report.warn(f"{mask} in a user's text becomes the mask token")


def describe_template(report: Report, tokenizer: PreTrainedTokenizerBase) -> None:
    """Report the rendered prompt of a user's turn. Raises ValueError if it cannot be rendered."""
    if tokenizer.chat_template is None:
        report.fact("prompt", "none: the tokenizer has no chat template")
        report.warn("no chat template: copy the instruct model's, training needs one")
        return
    encoder, user = TextEncoder(tokenizer), probes(tokenizer).prompts[0]
    chat = chat_prompt(user)
    text, mark = encoder.render(chat)
    prompt = encoder.rendered(text, mark)
    report.text("prompt", text)
    closed = _rendered(tokenizer, chat)
    opening = text.removeprefix(closed) if text != closed and text.startswith(closed) else ""
    report.text("opens", opening)
    if not opening:
        report.warn("the chat template does not open the assistant's turn")
    head = text.partition(user)[0]
    if "system" in head:
        report.fact("system", "the template adds a message by itself:")
        report.text("", head)
    else:
        report.fact("system", "no message added")
    answer = {"role": "assistant", "content": tagged_answer("tiny", "", "42")}
    whole = encoder.rendered(*encoder.render([*chat, answer], add_generation_prompt=False))
    if whole[: len(prompt)] == prompt:
        report.fact("prefix", f"yes: prompt, {len(prompt)} tokens, and answer, {len(whole)} tokens")
    else:
        same = next(i for i, pair in enumerate(_pairs(prompt, whole)) if pair[0] != pair[1])
        report.fact("prefix", f"no: differs from token {same} of {len(prompt)}")
        report.problem("the prompt is not a token prefix of prompt and answer")


def _pairs(prompt: Sequence[int], whole: Sequence[int]) -> list[tuple[int, int | None]]:
    return [*zip(prompt, [*whole, *[None] * len(prompt)], strict=False)]


def _rendered(tokenizer: PreTrainedTokenizerBase, chat: Sequence[Any]) -> str:
    return str(tokenizer.apply_chat_template([*chat], tokenize=False, add_generation_prompt=False))
