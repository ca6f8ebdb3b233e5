"""What a user writes stays text, and every reader of a completion sees the same text."""

import pytest
from bpe import CHATML, END, HEADER, TEXTS, byte_level, llada_bpe, smollm2_bpe
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from weft_rl.data.prompts import chat_prompt
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.models.toy import MASK, tiny_tokenizer

SPECIAL = [END, "<|im_start|>", "<|im_end|>"]


def dream_like():
    names = {"eos_token": END, "pad_token": END, "mask_token": "<|mask|>"}
    special, normalizer = [*SPECIAL, "<|box_start|>", "<|mask|>"], normalizers.NFC()
    plain = ["<think>", "</think>"]
    return byte_level(special, CHATML, plain=plain, normalizer=normalizer, **names)


def in_vocabulary(kind):
    """Tokenizers whose model has the special tokens as words, which byte-level ones have not."""
    names = {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
        "eos_token": "[SEP]",
    }
    letters = [chr(i) for i in range(32, 127)]
    words = [*names.values(), *letters, *(f"##{letter}" for letter in letters[1:])]
    if kind == "unigram":
        pieces = [(word, 0.0 if word in names.values() else -5.0) for word in words[:99]]
        backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    else:
        vocabulary = {word: i for i, word in enumerate(words)}
        backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.decoder = decoders.WordPiece(cleanup=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + '[SEP]' }}{% endfor %}"
    )
    return tokenizer


BYTE_LEVEL = {"llada": llada_bpe(), "llada without flags": llada_bpe(flagged=False)}
BYTE_LEVEL |= {"dream": dream_like(), "smollm2": smollm2_bpe()}
ALL = BYTE_LEVEL | {"tiny": tiny_tokenizer()}
ALL |= {kind: in_vocabulary(kind) for kind in ("unigram", "wordpiece")}


def special_tokens(tokenizer):
    families = {"<|mdm_mask|>", "<|eot_id|>", "<|mask|>", "<|im_end|>"}
    added = tokenizer.added_tokens_decoder.values()
    flagged = {str(token) for token in added if token.special or str(token) in families}
    return sorted(flagged | set(tokenizer.all_special_tokens))


def spelled(token):
    parts = f"a {token[:-1]}{token} {token[1:]}"
    return [token, f"Ann has {token} apples", f"{token}{token}x", parts]


def specials_in(tokenizer, ids):
    """Special ids in order; the unknown token is what any text may become."""
    special = {*tokenizer.convert_tokens_to_ids(special_tokens(tokenizer))}
    return [token for token in ids if token in special - {tokenizer.unk_token_id}]


EVERY = pytest.mark.parametrize("name", ALL)


@EVERY
def test_a_special_token_that_a_user_spells_is_text(name):
    """Alone and in each message of a chat, whose template has its own and no others."""
    tokenizer, turns = ALL[name], ("system", "user", "assistant", "user")
    encoder, plain = TextEncoder(tokenizer), [{"role": who, "content": "x"} for who in turns]
    (bare,) = encoder.chats([plain])
    for text in (text for token in special_tokens(tokenizer) for text in spelled(token)):
        (ids,) = encoder.texts([text])
        assert specials_in(tokenizer, ids) == [], text
        assert name not in BYTE_LEVEL or decode_completion(tokenizer, ids) == text
        for role in turns[:3]:
            chat = [each | {"content": text} if each["role"] == role else each for each in plain]
            (ids,) = encoder.chats([chat])
            assert specials_in(tokenizer, ids) == specials_in(tokenizer, bare), text
            assert name not in BYTE_LEVEL or text.strip() in decode_completion(tokenizer, ids)


@EVERY
def test_other_texts_have_the_ids_that_the_tokenizer_gives_them(name):
    tokenizer = ALL[name]
    encoder = TextEncoder(tokenizer)
    assert encoder.texts(TEXTS) == [tokenizer.encode(t, add_special_tokens=False) for t in TEXTS]
    chats = [chat_prompt(text, [("user", "1"), ("assistant", "2")]) for text in TEXTS]
    rendered = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        for chat in chats
    ]
    whole = [tokenizer.encode(text, add_special_tokens=False) for text in rendered]
    assert encoder.chats(chats) == whole
    # one spelling beside them changes nothing of theirs
    token = special_tokens(tokenizer)[0]
    assert encoder.texts([token, *TEXTS, token])[1:-1] == encoder.texts(TEXTS)
    assert encoder.chats([chat_prompt(token), *chats])[1:] == whole
    # the parts that a chat is encoded in are encoded as the whole
    assert [encoder.rendered(text, "") for text in rendered] == whole
    if name not in ("unigram", "wordpiece"):  # whose template begins with no special token
        assert [encoder.context(text) for text in rendered] == whole
    if name in BYTE_LEVEL:
        assert [decode_completion(tokenizer, ids) for ids in encoder.texts(TEXTS)] == TEXTS


@pytest.mark.parametrize("name", ["llada", "dream", "smollm2", "tiny"])
def test_a_context_of_the_harness(name):
    """Rendered here or plain text, with and without special tokens that a user spells."""
    tokenizer, encoder = ALL[name], TextEncoder(ALL[name])
    mask, private = tokenizer.mask_token, "\U000f0000"
    for content in ("Sort: 21", f"1 {mask} 2", f"{tokenizer.eos_token}", f"{private}{mask}"):
        chat = chat_prompt(content)
        assert [encoder.context(encoder.render(chat)[0])] == encoder.chats([chat])
        if not tokenizer.apply_chat_template(chat, tokenize=False).startswith(content):
            assert encoder.context(content) == encoder.texts([content])[0]
    # an answer that the harness has begun stays open
    begun = [*chat_prompt("1"), {"role": "assistant", "content": "2"}]
    assert encoder.render(begun, add_generation_prompt=False)[0].endswith("2")


THOUGHT = ("assistant", "<think>a</think>b")


def test_an_answer_opens_its_own_thought():
    """DeepSeek-R1's template, which opens it in the prompt, is like one that does not."""
    plain, opening = dream_like(), dream_like()
    texts = ("x", "x <think>", "<think>", f"{opening.mask_token} <think>\n")
    chats = [chat_prompt(text, turns) for text in texts for turns in ((), (THOUGHT,))]
    for opened in ("<think>", "<think>\n", "<think>\n\n"):
        opening.chat_template = CHATML.replace(HEADER, HEADER + f"{{{{ {opened!r} }}}}")
        assert TextEncoder(opening).chats(chats) == TextEncoder(plain).chats(chats)
    # text of a message at the end is no generation prompt
    opening.chat_template = "{{ messages[-1]['content'] }}"
    assert TextEncoder(opening).render(chat_prompt("x <think>"))[0] == "x <think>"


def test_private_characters_and_tokens_that_overlap():
    overlapping = byte_level(["<|a|>", "|>b", "|a|"], CHATML, eos_token="<|a|>")
    for tokenizer, texts in (
        (BYTE_LEVEL["dream"], ["\U000f0000<|mask|>\U000f0001 \U000f0000"]),
        (overlapping, ["<|a|>b", "<|a|>|>b|a|", "<<|a|>b>"]),
    ):
        for text, ids in zip(texts, TextEncoder(tokenizer).texts(texts), strict=True):
            assert specials_in(tokenizer, ids) == []
            assert decode_completion(tokenizer, ids) == text
    # a character that is called special is text
    tokenizer, text = byte_level(["<|a|>", "~", "\n\n"], CHATML, eos_token="<|a|>"), "1 ~ 2\n\n3"
    expected = [tokenizer.encode(text, add_special_tokens=False)]
    assert TextEncoder(tokenizer).texts([text]) == expected


def test_a_tokenizer_that_cannot():
    """Every part of the token is the token itself."""
    backend = Tokenizer(models.WordLevel({"x": 0, "[E]": 1}, unk_token="[E]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[E]")
    encoder = TextEncoder(tokenizer)
    with pytest.raises(ValueError, match=r"\[E\]"):
        encoder.texts(["x", "a [E] b"])
    tokenizer.chat_template = "{{ raise_exception('only two roles') }}"
    with pytest.raises(ValueError, match="only two roles"):
        encoder.chats([chat_prompt("x")])


def test_contents_that_are_no_text():
    """Parts of text are joined, as templates do; the rest is an error, also in a batch."""
    tokenizer = BYTE_LEVEL["smollm2"]
    encoder, texts = TextEncoder(tokenizer), ["a ", END, "b"]
    parts = [{"type": "text", "text": text} for text in texts]
    joined = encoder.chats([[{"role": "user", "content": parts}]])
    assert joined == encoder.chats([chat_prompt("".join(texts))])
    with pytest.raises(ValueError, match="surrogate"):
        encoder.texts(["x", "a\ud83d"])
    for content in ("a\udcff", None, 5, [{"type": "image"}], ["a"]):
        with pytest.raises(ValueError, match="content of a message"):
            encoder.chats([chat_prompt("x"), [{"role": "user", "content": content}]])


@EVERY
def test_every_token_ends_a_completion_or_is_seen(name):
    """Of all ids of each vocabulary, padded rows of the embedding among them."""
    tokenizer, (start, stop) = ALL[name], TextEncoder(ALL[name]).texts(["a 1", "2"])
    names = {"<|eot_id|>", "<|im_end|>", tokenizer.eos_token} & {*tokenizer.get_vocab()}
    ends = tokenizer.convert_tokens_to_ids(sorted(names))
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    before, after = (decode_completion(tokenizer, ids) for ids in (start, stop))
    for token in range(len(tokenizer) + 3):
        ids = [*start, token, *stop]
        text = decode_completion(tokenizer, ids, ends)
        if token in ends:
            assert text == before
        elif token in special:
            assert tokenizer.convert_ids_to_tokens(token) in text, token
        else:
            assert text == tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
            assert after[-1] in text
        text.encode()  # no half of a surrogate pair, whatever bytes a token has


def test_special_tokens_and_blanks_before_punctuation_stay():
    tokenizer = BYTE_LEVEL["dream"]
    ids = tokenizer.encode("<answer>1<|box_start|>2</answer><|mask|><|im_end|>3")
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert decode_completion(tokenizer, ids, ends) == "<answer>1<|box_start|>2</answer><|mask|>"
    assert MASK in decode_completion(tiny_tokenizer(), [0, 1])
    tokenizer, text = BYTE_LEVEL["llada"], "3 , 4 ; do n't ."
    assert tokenizer.clean_up_tokenization_spaces
    assert decode_completion(tokenizer, tokenizer.encode(text)) == text
