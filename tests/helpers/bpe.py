"""Byte-level BPE tokenizers trained on a few sentences; they encode any text."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft_rl.families.llada import CHAT_TEMPLATE

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen2's and SmolLM2's form: a system prompt of the template's own, nothing trimmed.
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe helpful<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
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


def byte_level(special, template, *, plain=(), normalizer=None, **named):
    """plain: added tokens without the special flag."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizer
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
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
