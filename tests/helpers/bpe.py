"""Byte-level BPE tokenizers trained on a few sentences; they encode any text."""

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft_rl.checkpoints.gguf import smollm2_in_cache
from weft_rl.families.llada import CHAT_TEMPLATE
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model, load_tokenizer

# Qwen2's and SmolLM2's form: a system prompt of the template's own, nothing trimmed.
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe helpful<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADER = "{{ '<|im_start|>assistant\n' }}"  # the generation prompt
# Qwen3's form: without thinking, the prompt has an empty thought.
NO_THOUGHT = "<think>\n\n</think>\n\n"
QWEN3 = CHATML.replace(
    HEADER,
    f"{HEADER}{{% if enable_thinking is defined and not enable_thinking %}}"
    f"{{{{ {NO_THOUGHT!r} }}}}{{% endif %}}",
)
PUBLISHED = smollm2_in_cache()  # at import: tests set a cache of their own
END, START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = [
    "Natalia sold clips to 48 of her friends in April, and then half as many in May.",
    "\nRespond as follows:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n",
    "Let $f(x)=\\frac{1}{x^2-1}$. Find $\\boxed{f(2)}$  or 1,234.50\t%.\r\n\n  Done ?",
    "Zoë's naïve café ½ — 数学 🙂 don't , it 's",
    "a || b <| c |> <think>x</think>",
    "  leading and trailing  ",
    "",
]


def byte_level(special, template, *, plain=(), normalizer=None, digits=False, **named):
    """plain: added tokens without the special flag. digits: split as SmolLM2, not as Qwen2."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizer
    parts = [
        pre_tokenizers.Split(Regex(QWEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    if digits:
        parts = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    # include the special tokens' text, so that their parts merge like other words
    backend.train_from_iterator([*TEXTS, *(text * 3 for text in (*special, *plain))], trainer)
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    backend.add_tokens([AddedToken(text, normalized=False) for text in plain])
    tokenizer = PreTrainedTokenizerFast(
        # tokenizer files enable cleanup of blanks before punctuation; no text may lose them
        tokenizer_object=backend,
        clean_up_tokenization_spaces=True,
        **named,
    )
    tokenizer.chat_template = template
    return tokenizer


def llada_bpe(flagged=True):
    """flagged: whether all special tokens carry the special flag."""
    own = ["<|mdm_mask|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[gMASK]"]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    return byte_level(
        [*ends, *own] if flagged else ends,
        CHAT_TEMPLATE,
        plain=() if flagged else own,
        bos_token=ends[0],
        eos_token=ends[1],
        pad_token=ends[1],
        mask_token="<|mdm_mask|>",
    )


def smollm2_bpe():
    """A tokenizer in SmolLM2's form, with the mask token of an adapted model after all others."""
    special = [END, START, TURN_END, "<repo_name>", "<file_sep>"]
    named = {"unk_token": END, "bos_token": START, "eos_token": TURN_END, "pad_token": TURN_END}
    tokenizer = byte_level(special, CHATML, digits=True, **named)
    tokenizer.add_special_tokens({"mask_token": "<|mask|>"})
    return tokenizer


# Parameters of smollm2_tokenizer.
SMOLLM2 = [
    "trained",
    pytest.param(
        "published",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                not PUBLISHED.exists(), reason="model=smollm2_135m is not in the cache"
            ),
        ],
    ),
]


def smollm2_tokenizer(kind):
    """One of SmolLM2's form, or the published one, with the mask token of an adapted model."""
    return smollm2_bpe() if kind == "trained" else load_tokenizer(PUBLISHED, adapt=True)


def small_network(tokenizer, **changes):
    """A random network for a tokenizer whose completions end with its end token."""
    names = ("mask", "bos", "eos", "pad")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    ids |= {"eot_token_id": None, "vocab_size": len(tokenizer)} | changes
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return fresh_model(LLaDAConfig(**size, intermediate_size=32, **ids), 0)
