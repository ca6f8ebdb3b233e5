"""Files beside converted weights: upstream's code by name, tokenizers that load, nothing else."""

import json
import shutil

import pytest
from adapters import adapter, change_config, load
from transformers import AutoConfig, AutoTokenizer
from upstream_checkpoint import (
    UPSTREAM_TEMPLATE,
    dream_folder,
    dream_with_tokenizer,
    llada_folder,
    llada_with_tokenizer,
    with_tokenizer,
)

from weft_rl.convert import convert, main
from weft_rl.families import read_config
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import load_tokenizer

TURNS = [{"role": "user", "content": "Sort: 21"}, {"role": "assistant", "content": "12"}]
LLADA, DREAM = "GSAI-ML/LLaDA-8B-Instruct--", "Dream-org/Dream-v0-Instruct-7B--"
LLADA_CODE = dict.fromkeys(("AutoModel", "AutoModelForCausalLM"), "modeling_llada.LLaDAModelLM")
LLADA_CODE["AutoConfig"] = "configuration_llada.LLaDAConfig"
DREAM_CODE = {"AutoConfig": "configuration_dream.DreamConfig"}
DREAM_CODE["AutoModel"] = "modeling_dream.DreamModel"


def export(source, out, to="upstream"):
    convert(source, out, to, 10**9)
    return out


def read(folder, name="tokenizer_config.json"):
    return json.loads((folder / name).read_text())


def test_an_export_names_upstreams_code(tmp_path):
    """Through transformers' layout, from files with code beside them, and another repository's."""
    source = llada_with_tokenizer(tmp_path / "a")
    plain = export(source, tmp_path / "plain", "transformers")
    assert "auto_map" not in read_config(plain)
    code = {name: f"{LLADA}{path}" for name, path in LLADA_CODE.items()}
    for place, name in ((plain, "back"), (source, "copy")):
        assert read_config(export(place, tmp_path / name))["auto_map"] == code
    dream = export(dream_folder(tmp_path / "dream")[0], tmp_path / "dream2")
    code = {name: f"{DREAM}{path}" for name, path in DREAM_CODE.items()}
    assert read_config(dream)["auto_map"] == code
    code = {"AutoModel": "someone/finetuned--modeling_llada.LLaDAModelLM"}
    tuned = export(llada_folder(tmp_path / "b", auto_map=code)[0], tmp_path / "c")
    assert read_config(tuned)["auto_map"] == code


def test_named_code_is_not_requested(tmp_path, monkeypatch):
    folder = export(llada_with_tokenizer(tmp_path / "a"), tmp_path / "b")

    def fail(*_, **__):
        raise AssertionError("remote code was requested")

    for module in ("models.auto.configuration_auto", "models.auto.auto_factory"):
        monkeypatch.setattr(f"transformers.{module}.get_class_from_dynamic_module", fail)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    assert isinstance(config, LLaDAConfig)
    assert load(folder).config.rope
    assert load_tokenizer(str(folder)).mask_token == "<|mdm_mask|>"


@pytest.mark.parametrize("to", ["transformers", "upstream"])
def test_dreams_tokenizer_loads_without_code(tmp_path, to):
    folder, vocabulary = dream_with_tokenizer(tmp_path / "a")
    out = export(folder, tmp_path / "b", to)
    shutil.rmtree(folder)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert tokenizer.encode("ab", add_special_tokens=False) == [vocabulary["ab"]]
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("<|mask|>", 0)
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == "Sort: 21"
    assert "auto_map" not in read(out)


def test_tokenizers_of_exports(tmp_path):
    """transformers' layout has this package's template and a mask token; upstream's keeps its own.

    Release 5 saves a class, a list and a template file that release 4 does not read."""
    source = llada_with_tokenizer(tmp_path / "a")
    before, saved = AutoTokenizer.from_pretrained(source), read(source)
    assert before.mask_token is None
    assert before.apply_chat_template(TURNS, tokenize=False).count("assistant") == 2
    tokenizer = AutoTokenizer.from_pretrained(export(source, tmp_path / "b", "transformers"))
    chat = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert chat.endswith("assistant<|end_header_id|>\n\n12<|eot_id|>")
    prompt = tokenizer.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True)
    assert chat.startswith(prompt)
    assert tokenizer.mask_token_id == before.get_vocab()["<|mdm_mask|>"]
    assert saved["tokenizer_class"] == "TokenizersBackend"
    written = read(export(source, tmp_path / "c"))
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["additional_special_tokens"] == saved["extra_special_tokens"]
    assert not written.keys() & {"extra_special_tokens", "backend"}
    assert written["chat_template"] == UPSTREAM_TEMPLATE
    after = AutoTokenizer.from_pretrained(tmp_path / "c")
    assert after.chat_template == UPSTREAM_TEMPLATE
    assert set(before.all_special_tokens) == set(after.all_special_tokens)
    assert before("Sort: 21<|eot_id|>").input_ids == after("Sort: 21<|eot_id|>").input_ids


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_a_merged_adapter_has_the_bases_files_and_its_own_tokenizer(tmp_path, has_tokenizer):
    base = llada_with_tokenizer(tmp_path / "base")
    (base / "generation_config.json").write_text('{"eos_token_id": 1}')
    (base / "README.txt").write_text("of the base")
    folder = adapter(base, tmp_path / "run" / "step-1", 1)
    if has_tokenizer:
        with_tokenizer(folder, "{{ 'of the adapter' }}")
    for name in ("metric_line_0.json", "pytorch_model.bin", "notes.txt", "modeling_own.py"):
        (folder / name).write_text("{}")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    out = export(folder, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "SHA256SUMS"),
        *("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
    }
    assert read(out, "generation_config.json") == {"eos_token_id": 1}
    template = AutoTokenizer.from_pretrained(out).chat_template
    assert template == ("{{ 'of the adapter' }}" if has_tokenizer else UPSTREAM_TEMPLATE)


def test_convert_warns_of_a_tokenizer_that_does_not_fit(tmp_path, capsys):
    source = llada_with_tokenizer(tmp_path / "a")

    def warning(place, name):
        assert main([str(place), f"out={tmp_path / name}"]) == 0
        return capsys.readouterr().err

    assert not warning(source, "b")
    assert not warning(dream_with_tokenizer(tmp_path / "dream")[0], "dream2")
    change_config(source, "config.json", pad_token_id=50)
    assert "pad_token_id=50" in warning(source, "c")
    for name, content in (("d", '{"model": {"vocab": 3}}'), ("f", "no JSON")):
        (source / "tokenizer.json").write_text(content)
        assert str(tmp_path / name) in warning(source, name)
    for file in source.glob("token*.json"):
        file.unlink()
    assert str(tmp_path / "e") in warning(source, "e")


def test_a_dream_has_the_generation_settings_that_upstream_requires(tmp_path):
    folder, _ = dream_folder(tmp_path / "a")
    load(folder).save_pretrained(tmp_path / "trained")
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 1, "mask_token_id": 0}
    for name, settings in (("trained", {}), ("a", {"temperature": 0.2, "eos_token_id": 3})):
        if settings:
            (folder / "generation_config.json").write_text(json.dumps(settings))
        out = export(tmp_path / name, tmp_path / f"{name}2")
        assert read(out, "generation_config.json") == ids | settings
