"""Text to token ids and back, for all stages.

Text of the user stays text: special tokens that it spells are encoded as ordinary ones. Only those
of the chat template are special."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from weft_rl.data.prompts import PromptStyle, chat_prompt
from weft_rl.data.records import Record
from weft_rl.data.tasks import task_prompt
from weft_rl.errors import UserError
from weft_rl.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = Sequence[Mapping[str, str]]  # messages of role and content

# The first of Unicode's supplementary private characters, which no keyboard or tokenizer has.
_FIRST_PRIVATE = 0xF0000


class TextEncoder:
    """Token ids of texts and conversations; the tokenizer must not change afterwards."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        families = {text for each in FAMILIES for text in (each.mask_token, each.end_of_turn)}
        added = tokenizer.added_tokens_decoder.values()
        # published files do not flag all of a family's tokens as special
        special = {token.content for token in added if token.special or token.content in families}
        special |= {*tokenizer.all_special_tokens}
        # one character, or whitespace, is text even if flagged as special
        special = {text for text in special if len(text) > 1 and not text.isspace()}
        ids: Any = tokenizer.convert_tokens_to_ids([*special])
        self._ids = dict(zip(special, ids, strict=True))
        # text outside of the vocabulary becomes the unknown token
        self._reserved = {i: text for text, i in self._ids.items() if i != tokenizer.unk_token_id}
        longest_first = sorted(special, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or "(?!)"  # (?!) matches nothing
        self._special = re.compile(f"({pattern})")

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of a user's texts, without begin or end token.

        Raises ValueError naming a special token that the tokenizer cannot spell otherwise."""
        broken = [self._break(text) for text in texts]
        plain = iter(self._plain([text for text, mark in broken if not mark]))
        return [self._as_text(*each) if each[1] else next(plain) for each in broken]

    def chats(self, chats: Iterable[Chat]) -> list[list[int]]:
        """Ids of conversations, with the assistant's header at their end.

        Raises ValueError as `texts`, and for a conversation that the template refuses."""
        rendered = [self.render(chat) for chat in chats]
        plain = iter(self._plain([text for text, mark in rendered if not mark]))
        return [self.rendered(*each) if each[1] else next(plain) for each in rendered]

    def context(self, text: str) -> list[int]:
        """Ids of a rendered conversation, recognized by the special token that the template begins
        with, or of any other text as `texts`. Raises ValueError as `texts`."""
        begin = self._special.match(self.render([{"role": "user", "content": "x"}])[0])
        if begin is None or not text.startswith(begin[0]):
            return self.texts([text])[0]
        return self.rendered(text, next((c for c in text if ord(c) >= _FIRST_PRIVATE), ""))

    def render(self, chat: Chat, *, add_generation_prompt: bool = True) -> tuple[str, str]:
        """A conversation as text, and the character inserted into each special token that its
        messages spell, empty if they spell none. Without a generation prompt the last message
        stays open. A generation prompt that opens <think> ends before it: an answer has its own
        tags. Raises ValueError as `chats`."""
        *contents, mark = self._break(*(message["content"] for message in chat))
        messages = [
            {**message, "content": content} for message, content in zip(chat, contents, strict=True)
        ]
        if not add_generation_prompt:
            return self._template(messages, continue_final_message=True), mark
        text = self._template(messages, add_generation_prompt=True)
        unopened = text.rstrip().removesuffix("<think>")
        # a <think> of the last message itself, where the template adds nothing after it, is text
        is_opened = unopened != text.rstrip() and unopened.startswith(self._template(messages))
        return (unopened if is_opened else text), mark

    def _template(self, messages: list[dict[str, str]], **options: Any) -> str:
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses it ({error})") from error
        return str(text)

    def rendered(self, text: str, mark: str) -> list[int]:
        """Ids of a rendered conversation. Raises ValueError as `texts`."""
        ids: list[int] = []
        for piece in self._special.split(text):
            ids += [self._ids[piece]] if piece in self._ids else self._as_text(piece, mark)
        return ids

    def _break(self, *texts: str) -> tuple[str, ...]:
        """The texts with a character inserted into each special token they spell, and it."""
        if not any(map(self._special.search, texts)):
            return *texts, ""
        used = {*"".join(texts)}
        mark = next(c for c in map(chr, range(_FIRST_PRIVATE, 0x10FFFE)) if c not in used)
        broken = []
        for text in texts:
            # tokens may overlap: the others are broken in the next round
            while self._special.search(text):
                text = self._special.sub(lambda match: f"{match[0][0]}{mark}{match[0][1:]}", text)
            broken.append(text)
        return *broken, mark

    def _as_text(self, text: str, mark: str) -> list[int]:
        """Ids of a text whose special tokens are broken."""
        ids = self._plain([text.replace(mark, "")], split_special_tokens=True)[0]
        if self._reserved.keys().isdisjoint(ids):
            return ids
        # a model with special tokens among its words: their two halves are not
        parts = self._plain(text.split(mark) if mark else [text], split_special_tokens=True)
        ids = [token for part in parts for token in part]
        for token in self._reserved.keys() & ids:
            raise ValueError(f"the tokenizer reads {self._reserved[token]!r} as the special token")
        return ids

    def _plain(self, texts: list[str], *, split_special_tokens: bool = False) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=split_special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return encoded["input_ids"]


def decode_completion(
    tokenizer: "PreTrainedTokenizerBase", ids: Iterable[int], end_ids: Collection[int] = ()
) -> str:
    """The text of a completion up to its first end token, for rewards, scores and files.

    Special tokens stay visible, blanks are those of the tokens, and bytes that are not UTF-8 become
    U+FFFD."""
    before = [*takewhile(lambda token: token not in end_ids, ids)]
    text = tokenizer.decode(before, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


def task_prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", style: PromptStyle, records: Sequence[Record]
) -> list[list[int]]:
    """Ids of each record's prompt in the chat form, with the assistant's header at its end.

    Raises UserError naming the first record whose text has no ordinary tokens."""
    encoder = TextEncoder(tokenizer)
    chats = [chat_prompt(task_prompt(style, each.task, each.fields)) for each in records]
    try:
        return encoder.chats(chats)
    except ValueError:
        for record, chat in zip(records, chats, strict=True):
            try:
                encoder.chats([chat])
            except ValueError as error:
                raise UserError(f"{record.id}: {error}; change or remove the record") from error
        raise
