"""Encoding and decoding; special tokens spelled in user text are encoded as ordinary text."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from string import Formatter
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from weft_rl.config.fields import shown
from weft_rl.data.prompts import PromptFormat, chat_prompt
from weft_rl.data.records import Record
from weft_rl.data.tasks import task_chat
from weft_rl.data.trace_schemas import joined_parts
from weft_rl.data.values import require_unicode
from weft_rl.errors import UserError
from weft_rl.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = Sequence[Mapping[str, Any]]  # messages with role and content

# First supplementary private-use character, absent from keyboards and tokenizers.
_FIRST_PRIVATE = 0xF0000
# Characters that stand for bytes in byte-level vocabularies. Source: GPT-2's bytes_to_unicode.
_SAME = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_MOVED = (byte for byte in range(0x100) if byte not in _SAME)
_BYTES = {chr(i): i for i in _SAME} | {chr(0x100 + i): byte for i, byte in enumerate(_MOVED)}


class TextEncoder:
    """Encoder of texts and chats; the tokenizer must not change afterwards."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        families = {each.end_of_turn for each in FAMILIES}
        families |= {text for each in FAMILIES for text in (each.mask_token, *each.mask_tokens)}
        added = tokenizer.added_tokens_decoder.values()
        # published files do not flag all of a family's tokens as special
        flagged = {token.content for token in added if token.special or token.content in families}
        flagged |= {*tokenizer.all_special_tokens}
        # single characters and whitespace are text even if flagged as special
        special = {text for text in flagged if len(text) > 1 and not text.isspace()}
        ids: Any = tokenizer.convert_tokens_to_ids([*special])
        self._ids = dict(zip(special, ids, strict=True))
        self._reserved = {i: text for text, i in self._ids.items() if i != tokenizer.unk_token_id}
        longest_first = sorted(special, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or "(?!)"  # (?!) never matches
        self._special = re.compile(f"({pattern})")
        broken = (f"{re.escape(text[0])}(.){re.escape(text[1:])}" for text in longest_first)
        self._broken = re.compile("|".join(broken) or "(?!)", re.DOTALL)

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode user texts without begin or end token.

        Raises ValueError naming a special token that cannot be encoded as text, and for a text that
        is not Unicode."""
        checked = [self._break(require_unicode("a text", text)) for text in texts]
        return self._encoded(checked, self._as_text)

    def chats(self, chats: Iterable[Chat]) -> list[list[int]]:
        """Encode chats with the generation prompt. Raises ValueError as `texts` or in rendering."""
        return self._encoded([self.render(chat) for chat in chats], self.rendered)

    def context(self, text: str) -> list[int]:
        """Encode a rendered chat or a plain text. Raises ValueError as `texts`."""
        if not self.is_rendered(text):
            return self.texts([text])[0]
        inserted = (next(filter(None, match.groups())) for match in self._broken.finditer(text))
        return self.rendered(text, next((c for c in inserted if ord(c) >= _FIRST_PRIVATE), ""))

    def is_rendered(self, text: str) -> bool:
        """Whether a text begins with the special token of the chat template."""
        if self._tokenizer.chat_template is None:
            return False
        begin = self._special.match(self.render([{"role": "user", "content": "x"}])[0])
        return begin is not None and text.startswith(begin[0])

    def knows(self, chat: Chat, ids: Collection[int]) -> bool:
        """Whether a chat's ids lack the unknown token; a template may write it as its end token."""
        token, unknown = self._tokenizer.unk_token, self._tokenizer.unk_token_id
        return unknown not in ids or str(token) in self.render(chat)[0]

    def render(self, chat: Chat, *, add_generation_prompt: bool = True) -> tuple[str, str]:
        """Render a chat. Return its text and the mark inserted into spelled special tokens, if any.

        Without a generation prompt the last message stays open. A <think> at the end of the prompt
        is removed: answers have their own tags. Raises ValueError as `chats`."""
        name = "content of a message"
        parts = (joined_parts(name, message.get("content")) for message in chat)
        *contents, mark = self._break(*(require_unicode(name, text) for text in parts))
        messages = [
            {**message, "content": content} for message, content in zip(chat, contents, strict=True)
        ]
        if not add_generation_prompt:
            return self._template(messages, continue_final_message=True), mark
        text = self._template(messages, add_generation_prompt=True)
        unopened = text.rstrip().removesuffix("<think>")
        # a trailing <think> that the template did not add is text
        is_opened = unopened != text.rstrip() and unopened.startswith(self._template(messages))
        return (unopened if is_opened else text), mark

    def _template(self, messages: list[dict[str, str]], **options: Any) -> str:
        # an empty thought in Qwen3's prompts, as in the published evaluations of its A2D models
        options |= {"tokenize": False, "enable_thinking": False}
        try:
            text = self._tokenizer.apply_chat_template(messages, **options)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses it ({error})") from error
        return str(text)

    def rendered(self, text: str, mark: str) -> list[int]:
        """Encode a rendered chat. Raises ValueError as `texts`."""
        ids: list[int] = []
        for piece in self._special.split(text):
            ids += [self._ids[piece]] if piece in self._ids else self._as_text(piece, mark)
        return ids

    def _break(self, *texts: str) -> tuple[str, ...]:
        """Insert a mark into each spelled special token; return the texts and the mark."""
        if not any(map(self._special.search, texts)):
            return *texts, ""
        used = {*"".join(texts)}
        mark = next(c for c in map(chr, range(_FIRST_PRIVATE, 0x10FFFE)) if c not in used)
        broken = []
        for text in texts:
            # tokens may overlap: the next iteration breaks the others
            while self._special.search(text):
                text = self._special.sub(lambda match: f"{match[0][0]}{mark}{match[0][1:]}", text)
            broken.append(text)
        return *broken, mark

    def _as_text(self, text: str, mark: str) -> list[int]:
        ids = self._plain([text.replace(mark, "")], split=True)[0]
        if self._reserved.keys().isdisjoint(ids):
            return ids
        # special tokens may be vocabulary words too, but their halves are not
        parts = self._plain(text.split(mark) if mark else [text], split=True)
        ids = [token for part in parts for token in part]
        for token in self._reserved.keys() & ids:
            raise ValueError(f"the tokenizer reads {self._reserved[token]!r} as the special token")
        return ids

    def _encoded(
        self, marked: Sequence[tuple[str, ...]], encode: Callable[[str, str], list[int]]
    ) -> list[list[int]]:
        plain = iter(self._plain([text for text, mark in marked if not mark]))  # in one batch
        return [encode(text, mark) if mark else next(plain) for text, mark in marked]

    def _plain(self, texts: list[str], split: bool = False) -> list[list[int]]:
        options = {"add_special_tokens": False, "split_special_tokens": split, "verbose": False}
        return self._tokenizer(texts, **options)["input_ids"] if texts else []


def decode_completion(
    tokenizer: "PreTrainedTokenizerBase", ids: Iterable[int], end_ids: Collection[int] = ()
) -> str:
    """Decode a completion up to its first end token, with U+FFFD for bytes that are not UTF-8."""
    before = [*takewhile(lambda token: token not in end_ids, ids)]
    text = tokenizer.decode(before, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


def token_text(tokenizer: "PreTrainedTokenizerBase", token: int) -> str:
    """Decode one token; bytes that are no character on their own become text like \\xf0."""
    text = decode_completion(tokenizer, [token])
    if text and "\ufffd" not in text:
        return text
    piece: Any = tokenizer.convert_ids_to_tokens(token) or f"<{token}>"  # a row without a token
    is_bytes = _BYTES.keys() >= {*piece}
    spelled = bytes(_BYTES[c] for c in piece) if is_bytes else piece.encode()
    return spelled.decode(errors="backslashreplace")


def check_wording(tokenizer: "PreTrainedTokenizerBase", wording: PromptFormat) -> None:
    """Raise UserError if the tokenizer cannot encode the template or the system message."""
    encoder = TextEncoder(tokenizer)
    parts = [text for text, *_ in Formatter().parse(wording.template or "")]
    unknown, chat = tokenizer.unk_token_id, chat_prompt("", system=wording.system)

    def knows_template() -> bool:
        return not any(unknown in ids for ids in encoder.texts(parts))

    def knows_system() -> bool:  # with the token of its role
        return wording.system is None or encoder.knows(chat, encoder.chats([chat])[0])

    _require_tokens("task.prompt", wording.template, knows_template)
    _require_tokens("system", wording.system, knows_system)


def _require_tokens(key: str, value: str | None, is_known: Callable[[], bool]) -> None:
    problem = "the model has no tokens for parts of it"
    try:
        known = is_known()
    except ValueError as error:
        known, problem = False, str(error)
    if not known:
        raise UserError(f"{key}={shown(value)}: {problem}; write another, or leave it out")


def task_prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", wording: PromptFormat, records: Sequence[Record]
) -> list[list[int]]:
    """Encode each record's prompt with the generation prompt, or raise UserError naming it."""
    encoder = TextEncoder(tokenizer)
    chats = [task_chat(wording, record) for record in records]
    check_wording(tokenizer, wording)
    try:
        return encoder.chats(chats)
    except ValueError:
        for record, chat in zip(records, chats, strict=True):
            try:
                encoder.chats([chat])
            except ValueError as error:
                raise UserError(f"{record.id}: {error}; change or remove the record") from error
        raise
