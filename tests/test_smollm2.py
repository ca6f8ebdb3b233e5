"""SmolLM2's real weights: `make test-extras`, where its converted folder is in the cache."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from weft_rl import load_autoregressive
from weft_rl.checkpoints.gguf import smollm2_in_cache

FOLDER = smollm2_in_cache()  # the tests of other files use a cache of their own
CHAT = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = "The capital of France is Paris.<|im_end|>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.exists(), reason="model=smollm2_135m is not in the cache"),
]


@pytest.fixture(scope="module")
def network():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def prompt_and_answer(tokenizer):
    prompt = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    parts = [tokenizer(text, return_tensors="pt")["input_ids"] for text in (prompt, GREEDY)]
    return torch.cat(parts, 1), parts[0].shape[1]


def test_the_greedy_answer(network, tokenizer):
    ids, start = prompt_and_answer(tokenizer)
    written = network.generate(ids[:, :start], max_new_tokens=16, do_sample=False)
    assert tokenizer.decode(written[0, start:]) == GREEDY


def test_the_adapted_network_with_a_causal_and_a_full_mask(network, tokenizer):
    """Without a causal mask it is another function, which stage a2d trains."""
    ids, _ = prompt_and_answer(tokenizer)
    adapted, _ = load_autoregressive(FOLDER)
    length = ids.shape[1]
    with torch.no_grad():
        expected = network(ids).logits
        full = network(ids, attention_mask=torch.zeros(1, 1, length, length)).logits
        bidirectional = adapted(ids).logits
        adapted.attention_pattern = lambda length, device: torch.ones(
            length, length, dtype=torch.bool, device=device
        ).tril()
        causal = adapted(ids).logits
    rows = expected.shape[-1]  # a row for the mask token was added
    torch.testing.assert_close(causal[..., :rows], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(bidirectional[..., :rows], full, rtol=0, atol=1e-5)
    assert (full - expected).abs().max() > 1


def test_the_tokenizer(tokenizer):
    assert len(tokenizer) == 49152
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    tokens = ["<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>"]
    assert [tokenizer.special_tokens_map[name] for name in names] == tokens
    # a digit is a token of its own, and does not split the line breaks before it
    assert tokenizer.tokenize("is\n\n42") == ["is", "ĊĊ", "4", "2"]
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text.endswith(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
