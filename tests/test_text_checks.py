"""Text that a model's tokenizer has no ordinary tokens for is named before any stage begins."""

import json

import pytest
from refusals import refusal
from run_folders import write_lines
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from upstream_checkpoint import DREAM_CONFIG

from weft_rl.config.load import load_run_config
from weft_rl.config.schema import BaseConfig
from weft_rl.data.toy import EOS, MASK
from weft_rl.errors import UserError
from weft_rl.models import DreamConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import tiny_config, tiny_tokenizer
from weft_rl.stages import check

FILES = {"sft": "data", "rl": "rl.rollout.data", "eval": "eval.data"}
WORDS = [
    *("stages=[sft,rl]", "task=gsm8k", "prompt_style=d1", "device=cpu", "eval.preset=run"),
    *("cold_start.lora.r=0", "rl.lora.r=0", "rl.num_prompts=1", "rl.num_generations=2"),
    *("rl.optimizer.micro_batch_size=null", "sampler.gen_length=8", "sampler.block_length=8"),
    "sampler.steps=4",
]


def words_for(model, folder, spelling=None):
    """A run on a record for each stage; that of `spelling` spells the mask token."""
    words = [*WORDS, f"model={model}"]
    for name, key in FILES.items():
        row = {"question": f"1 {MASK} 2" if name == spelling else "1 2"}
        row |= {"answer": "#### 3", "attempt": "3", "thinking_trajectories": ["3"]}
        write_lines(folder / f"{name}.jsonl", [row])
        words.append(f"{key}={folder / name}.jsonl")
    return words


def unable(folder):
    """A checkpoint whose tokenizer has a special token for all that it has no token for."""
    config = tiny_config(BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    config.rope, config.max_position_embeddings = True, 2048
    fresh_model(config, 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    path, options = folder / "tokenizer.json", folder / "tokenizer_config.json"
    content, kept = json.loads(path.read_text()), json.loads(options.read_text())
    content["model"]["unk_token"] = EOS
    del kept["unk_token"]
    path.write_text(json.dumps(content))
    options.write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize("stage", FILES)
def test_text_without_ordinary_tokens(stage, tmp_path):
    model = unable(tmp_path / "model")
    check(load_run_config(words_for(model, tmp_path), command="it"))
    message = refusal(check, load_run_config(words_for(model, tmp_path, stage), command="it"))
    assert (f"{stage}.jsonl" in message, EOS in message) == (True, True)


def test_a_model_without_a_chat_template(tmp_path):
    """Of a family that has no template of its own; every record would be called unusable."""
    folder = tmp_path / "model"
    fresh_model(DreamConfig(**(DREAM_CONFIG | {"vocab_size": 300})), 0).save_pretrained(folder)
    vocabulary = {"<|mask|>": 0, "<|endoftext|>": 1} | {chr(i): i + 2 for i in range(256)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="x"))
    ends = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "mask_token": "<|mask|>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **ends).save_pretrained(folder)
    with pytest.raises(UserError, match=f"model={folder}: .*chat template"):
        check(load_run_config(words_for(folder, tmp_path), command="it"))
