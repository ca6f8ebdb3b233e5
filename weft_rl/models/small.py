"""The small model: about 40 million parameters and a byte-level BPE tokenizer, LLaDA's in form."""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft_rl.config.schema import BaseConfig
from weft_rl.data.small_world import small_texts
from weft_rl.data.symbols import BOS, EOS, EOT, MASK, SMALL_VOCABULARY
from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.tokenizer import CHAT_TEMPLATE

_SPECIAL = [MASK, EOS, BOS, EOT, "<|start_header_id|>", "<|end_header_id|>"]
_TEXTS, _SEED = 4000, 0  # what it is trained on; more adds no words
_POSITIONS = 1024


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained on the spot on generated text; any text fits it.

    Digits stay apart: a puzzle is sixteen tokens. Training takes some seconds; its result depends
    on nothing but the code."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL_VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        extra_special_tokens=_SPECIAL[3:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _texts() -> Iterator[str]:
    for prompt, completion in small_texts(_TEXTS, _SEED):
        yield prompt
        yield completion


def small_config(options: BaseConfig) -> LLaDAConfig:
    """A LLaDA over the small world's vocabulary, with rotary positions."""
    ids = {text: i for i, text in enumerate(_SPECIAL)}
    return LLaDAConfig(
        vocab_size=SMALL_VOCABULARY,
        hidden_size=options.hidden_size,
        num_hidden_layers=options.num_hidden_layers,
        num_attention_heads=options.num_attention_heads,
        intermediate_size=options.intermediate_size,
        max_position_embeddings=_POSITIONS,
        mask_token_id=ids[MASK],
        bos_token_id=ids[BOS],
        eos_token_id=ids[EOS],
        eot_token_id=ids[EOT],
        pad_token_id=ids[EOS],
    )
