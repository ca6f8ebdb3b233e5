"""An export's tokenizer in real releases 4 of transformers: `make test-extras`."""

import json
import os
import subprocess

import pytest
from bpe import llada_bpe
from transformers import AutoTokenizer
from upstream_checkpoint import dream_with_tokenizer, llada_folder, llada_with_tokenizer

from weft_rl.convert import convert
from weft_rl.models.loading import load_tokenizer

# Interpreters that have such a release.
PYTHONS = os.environ.get("OLD_TRANSFORMERS", "").split()
TEXT = "Sort: 21<|eot_id|>"
TURNS = [{"role": "user", "content": "Sort: 21"}]
READ = """
import json, sys
from transformers import AutoTokenizer, __version__
assert __version__.startswith("4."), __version__
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
turns = json.loads(sys.argv[3])
prompt = tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True)
ids = tokenizer(sys.argv[2])["input_ids"]
print(json.dumps([ids, prompt, sorted(tokenizer.all_special_tokens), tokenizer.mask_token]))
"""


def small(folder):
    tokenizer = llada_bpe()
    ids, end = tokenizer.get_vocab(), tokenizer.eos_token_id
    special = {"mask_token_id": tokenizer.mask_token_id, "eos_token_id": end, "pad_token_id": end}
    rows = {"eot_token_id": ids["<|eot_id|>"], "vocab_size": 1024, "embedding_size": 1024}
    llada_folder(folder, **special, **rows)
    tokenizer.save_pretrained(folder)
    return folder


def trained_dream(folder):
    """As a run leaves it: saved by transformers 5."""
    source, _ = dream_with_tokenizer(folder)
    load_tokenizer(str(source)).save_pretrained(source)
    for name in ("vocab.json", "merges.txt"):
        (source / name).unlink(missing_ok=True)
    return source


@pytest.mark.skipif(not PYTHONS, reason="make test-extras has these releases")
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("make", [llada_with_tokenizer, small, trained_dream])
@pytest.mark.parametrize("to", ["upstream", "transformers"])
def test_an_exports_tokenizer(tmp_path, make, python, to):
    convert(make(tmp_path / "a"), tmp_path / "b", to, 10**9)
    done = subprocess.run(
        [python, "-c", READ, str(tmp_path / "b"), TEXT, json.dumps(TURNS)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b")
    prompt = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True)["input_ids"]
    special = sorted(tokenizer.all_special_tokens)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [tokenizer(TEXT).input_ids, prompt, special, tokenizer.mask_token]
