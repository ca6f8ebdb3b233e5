"""The small model: about 40 million parameters and a byte-level BPE tokenizer, LLaDA's in form."""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft_rl.config.schema import BaseConfig
from weft_rl.data.small_world import small_texts
from weft_rl.data.toy.vocabulary import BOS, EOS, EOT, MASK, SMALL_VOCABULARY
from weft_rl.models.configuration_llada import LLaDAConfig
from weft_rl.models.toy import chat_tokenizer, config_over

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
    return chat_tokenizer(backend, _SPECIAL[3:])


def _texts() -> Iterator[str]:
    for prompt, completion in small_texts(_TEXTS, _SEED):
        yield prompt
        yield completion


def small_config(options: BaseConfig) -> LLaDAConfig:
    """A LLaDA over the small world's vocabulary, with rotary positions."""
    return config_over(
        _SPECIAL, options, vocab_size=SMALL_VOCABULARY, max_position_embeddings=_POSITIONS
    )
