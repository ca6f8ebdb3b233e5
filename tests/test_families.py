"""A further family as one file, as docs/scale.md has it, from published weights to a cold start."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig
from upstream_checkpoint import llada_folder

from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.families import FAMILY, family_of, read_config, registry
from weft_rl.families.llada import LLADA
from weft_rl.models.toy import tiny_tokenizer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
# Run with the page's file in a folder that is one of weft_rl.families.
USE = """
import sys
from pathlib import Path
import weft_rl.families
own, work = Path(sys.argv[1]), Path(sys.argv[2])
weft_rl.families.__path__.append(str(own))
from weft_rl.convert import convert
from weft_rl.families import FAMILIES, read_config
from weft_rl.pipeline import main
assert [family.name for family in FAMILIES] == ["dream", "llada", "third"]
assert "torch" not in sys.modules
plain = convert(work / "a", work / "b", "transformers", 10**9)
back = convert(work / "b", work / "c", "upstream", 10**9)
assert plain.digest == back.digest
types = [read_config(work / name)["model_type"] for name in "abc"]
assert types == ["third", "llama", "third"], types
few = ["cold_start.records=4", "cold_start.epochs=1", "cold_start.batch_size=2"]
few += ["eval.after_each=false", "cold_start.lora.r=0"]
words = [f"model={work / 'c'}", "preset=tiny", "stages=[weft]", *few, f"out={work / 'run'}"]
assert main(words) == 0
(last,) = (work / "run" / "checkpoints" / "weft").iterdir()
assert read_config(last)["model_type"] == "third"
"""


def third_folder(folder, **changes):
    ids = tiny_tokenizer().get_vocab()
    end = ids["<|endoftext|>"]
    special = {"mask_token_id": ids["<|mdm_mask|>"], "eos_token_id": end, "pad_token_id": end}
    special |= {"eot_token_id": ids["<|eot_id|>"], "vocab_size": len(ids)}
    special |= {"embedding_size": len(ids), "max_sequence_length": 256, "model_type": "third"}
    llada_folder(folder, **(special | changes))
    tiny_tokenizer().save_pretrained(folder)


def test_a_third_family_is_one_file(tmp_path):
    (own := tmp_path / "families").mkdir()
    found = re.search(r"`weft_rl/families/third\.py`.*\n\n((?: {4}.*\n|\n)+)", PAGE)
    code = re.sub(r"(?m)^ {4}", "", found[1])
    (own / "third.py").write_text(f'"""The third family."""\n\n{code}')
    third_folder(tmp_path / "a")
    done = subprocess.run(
        [sys.executable, "-c", USE, str(own), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_families_of_one_class_are_told_apart(tmp_path, monkeypatch):
    llada_folder(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "transformers", 10**9)
    config = read_config(tmp_path / "b")
    third = replace(LLADA, name="third", model_types=("third",))
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, third))
    assert family_of(config, tmp_path) == (LLADA, True)
    assert family_of(config | {FAMILY: "third"}, tmp_path) == (third, True)
    with pytest.raises(UserError, match="of diffusion_family='fourth': no such family"):
        family_of(config | {FAMILY: "fourth"}, tmp_path)
    del config[FAMILY]
    with pytest.raises(UserError, match=r'may be any of llada, third; put its .*"diffusion_f'):
        family_of(config, tmp_path)
    monkeypatch.undo()
    # where there is one family of Llama's class, a folder that does not say it is that one's
    assert family_of(config, tmp_path) == (LLADA, True)


def test_each_way_to_write_a_model_type_is_known_to_transformers():
    for family in registry.FAMILIES:
        for kind in family.model_types:
            assert AutoConfig.for_model(kind).model_type == kind
