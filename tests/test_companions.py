"""What goes along with weights: upstream's code by name, tokenizers that load, no more."""

import json
import shutil

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM, Qwen2ForCausalLM
from upstream_checkpoint import DREAM_CONFIG, llada_folder, random_tensors, write_folder

from weft_rl.config.model import LoraConfig
from weft_rl.convert import convert, main
from weft_rl.families.dream import DREAM
from weft_rl.families.registry import read_config
from weft_rl.models.configuration_llada import LLaDAConfig
from weft_rl.models.loading import load_model, load_tokenizer, with_lora
from weft_rl.models.toy import tiny_tokenizer

TURNS = [{"role": "user", "content": "Sort: 21"}, {"role": "assistant", "content": "12"}]
# As published: a header for the assistant whatever is asked for.
UPSTREAM_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
LLADA_CODE = {
    "AutoConfig": "GSAI-ML/LLaDA-8B-Instruct--configuration_llada.LLaDAConfig",
    "AutoModel": "GSAI-ML/LLaDA-8B-Instruct--modeling_llada.LLaDAModelLM",
    "AutoModelForCausalLM": "GSAI-ML/LLaDA-8B-Instruct--modeling_llada.LLaDAModelLM",
}
DREAM_CODE = {
    "AutoConfig": "Dream-org/Dream-v0-Instruct-7B--configuration_dream.DreamConfig",
    "AutoModel": "Dream-org/Dream-v0-Instruct-7B--modeling_dream.DreamModel",
}
BIG = 10**9


def with_tokenizer(folder, template=UPSTREAM_TEMPLATE):
    """The tiny tokenizer as upstream's is: its own template, no mask token set."""
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token, tokenizer.chat_template = None, template
    tokenizer.save_pretrained(folder)
    return folder


def llada(folder, **changes):
    ids = tiny_tokenizer().get_vocab()
    special = {"mask_token_id": ids["<|mdm_mask|>"], "eos_token_id": ids["<|endoftext|>"]}
    special |= {"pad_token_id": ids["<|endoftext|>"], "eot_token_id": ids["<|eot_id|>"]}
    special |= {"vocab_size": 56, "embedding_size": 56}
    return with_tokenizer(llada_folder(folder, **(special | changes))[0])


def dream(folder):
    rows = {"vocab_size": 300}
    config = DREAM_CONFIG | rows | {"eot_token_id": 3}
    shapes = {spec.upstream: spec.shape for spec in DREAM.tensors(DREAM.sizes(config))}
    write_folder(folder, config, random_tensors(shapes))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*alphabet, "ab"], 4)}
    vocabulary |= {"<|mask|>": 0, "<|endoftext|>": 1, "<|im_start|>": 2, "<|im_end|>": 3}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    own = {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]}
    content = {"tokenizer_class": "DreamTokenizer", "auto_map": own, "eos_token": "<|endoftext|>"}
    content |= {"mask_token": "<|mask|>", "chat_template": "{{ messages[0]['content'] }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder, vocabulary


def test_an_export_names_upstreams_code(tmp_path):
    """Through transformers' layout, and from files whose code lay beside them."""
    source = llada(tmp_path / "a")
    convert(source, tmp_path / "plain", "transformers", BIG)
    convert(tmp_path / "plain", tmp_path / "back", "upstream", BIG)
    convert(source, tmp_path / "copy", "upstream", BIG)
    assert "auto_map" not in read_config(tmp_path / "plain")
    assert read_config(tmp_path / "back")["auto_map"] == LLADA_CODE
    assert read_config(tmp_path / "copy")["auto_map"] == LLADA_CODE
    folder, _ = dream(tmp_path / "dream")
    convert(folder, tmp_path / "dream2", "upstream", BIG)
    assert read_config(tmp_path / "dream2")["auto_map"] == DREAM_CODE


def test_another_repositorys_code_stays_named(tmp_path):
    own = {"AutoModel": "someone/finetuned--modeling_llada.LLaDAModelLM"}
    convert(llada(tmp_path / "a", auto_map=own), tmp_path / "b", "upstream", BIG)
    assert read_config(tmp_path / "b")["auto_map"] == own


def test_named_code_is_not_asked_for(tmp_path, monkeypatch):
    """Our loader builds its own classes: the repository is not looked at, let alone run."""
    convert(llada(tmp_path / "a"), tmp_path / "b", "upstream", BIG)

    def refused(*_, **__):
        raise AssertionError("remote code was looked for")

    for place in ("models.auto.configuration_auto", "models.auto.auto_factory"):
        monkeypatch.setattr(f"transformers.{place}.get_class_from_dynamic_module", refused)
    config = AutoConfig.from_pretrained(tmp_path / "b", trust_remote_code=False)
    assert isinstance(config, LLaDAConfig)
    assert load_model(str(tmp_path / "b"), torch.device("cpu"), torch.float32).config.rope
    assert load_tokenizer(str(tmp_path / "b")).mask_token == "<|mdm_mask|>"


@pytest.mark.parametrize("to", ["transformers", "upstream"])
def test_dreams_tokenizer_loads_without_code(tmp_path, to):
    folder, vocabulary = dream(tmp_path / "a")
    convert(folder, tmp_path / "b", to, BIG)
    shutil.rmtree(folder)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert tokenizer.encode("ab", add_special_tokens=False) == [vocabulary["ab"]]
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("<|mask|>", 0)
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == "Sort: 21"
    assert "auto_map" not in json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())


def test_the_plain_tokenizer_has_our_chat_form_and_its_mask(tmp_path):
    """Read by transformers alone, nothing of this package."""
    source = llada(tmp_path / "a")
    before = AutoTokenizer.from_pretrained(source)
    assert before.mask_token is None
    assert before.apply_chat_template(TURNS, tokenize=False).count("assistant") == 2
    convert(source, tmp_path / "b", "transformers", BIG)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b")
    whole = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert whole.endswith("assistant<|end_header_id|>\n\n12<|eot_id|>")
    asked = tokenizer.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True)
    assert whole.startswith(asked)
    assert tokenizer.mask_token_id == before.get_vocab()["<|mdm_mask|>"]


def test_upstreams_tokenizer_stays_upstreams(tmp_path):
    source = llada(tmp_path / "a")
    convert(source, tmp_path / "b", "upstream", BIG)
    assert AutoTokenizer.from_pretrained(tmp_path / "b").chat_template == UPSTREAM_TEMPLATE


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_a_merged_adapter_has_the_bases_companions_and_its_own_tokenizer(tmp_path, has_tokenizer):
    base = llada(tmp_path / "base")
    (base / "generation_config.json").write_text('{"eos_token_id": 1}')
    (base / "README.txt").write_text("of the base")
    model = load_model(str(base), torch.device("cpu"), torch.float32)
    folder = tmp_path / "run" / "step-1"
    with_lora(model, LoraConfig(2, targets=["q_proj"]), str(base), folder).save_pretrained(folder)
    if has_tokenizer:
        with_tokenizer(folder, "{{ 'of the adapter' }}")
    for name in ("metric_line_0.json", "trainer_state.json", "notes.txt"):
        (folder / name).write_text("{}")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    convert(folder, tmp_path / "out", "upstream", BIG)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "SHA256SUMS"),
        *("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
    }
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {
        "eos_token_id": 1
    }
    template = AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert template == ("{{ 'of the adapter' }}" if has_tokenizer else UPSTREAM_TEMPLATE)


def test_convert_says_of_a_tokenizer_that_it_does_not_fit(tmp_path, capsys):
    source = llada(tmp_path / "a")
    assert main([str(source), f"out={tmp_path / 'b'}"]) == 0
    assert main([str(dream(tmp_path / "dream")[0]), f"out={tmp_path / 'dream2'}"]) == 0
    assert capsys.readouterr().err == ""
    path = source / "config.json"
    path.write_text(json.dumps(read_config(source) | {"pad_token_id": 50}))
    assert main([str(source), f"out={tmp_path / 'c'}"]) == 0
    cure = "; copy the model's own tokenizer files there\n"
    problem = "pad_token_id=50, but the tokenizer has <|endoftext|> as 1"
    wanted = f"weft_rl.convert: {tmp_path / 'c'}: {problem}{cure}"
    assert capsys.readouterr().err == wanted
    for name, content in (("d", '{"model": {"vocab": 3}}'), ("f", "no JSON")):
        (source / "tokenizer.json").write_text(content)
        assert main([str(source), f"out={tmp_path / name}"]) == 0
        assert "its tokenizer's files cannot be read; copy" in capsys.readouterr().err
    for file in source.glob("token*.json"):
        file.unlink()
    assert main([str(source), f"out={tmp_path / 'e'}"]) == 0
    assert capsys.readouterr().err.endswith(f"{tmp_path / 'e'}: there is no tokenizer{cure}")


def test_an_exports_tokenizer_is_in_the_form_that_transformers_4_reads(tmp_path):
    """Release 5 saves a class, a list and a template's file that release 4 does not know."""
    source = llada(tmp_path / "a")
    saved = json.loads((source / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "TokenizersBackend"
    convert(source, tmp_path / "b", "upstream", BIG)
    written = json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["additional_special_tokens"] == saved["extra_special_tokens"]
    assert not written.keys() & {"extra_special_tokens", "backend"}
    assert written["chat_template"] == UPSTREAM_TEMPLATE
    one, other = (AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / "b"))
    assert set(one.all_special_tokens) == set(other.all_special_tokens)
    assert one("Sort: 21<|eot_id|>").input_ids == other("Sort: 21<|eot_id|>").input_ids


def test_a_dream_has_the_generation_settings_that_upstream_demands(tmp_path):
    folder, _ = dream(tmp_path / "a")
    trained = load_model(str(folder), torch.device("cpu"), torch.float32)
    trained.save_pretrained(tmp_path / "trained")
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 1, "mask_token_id": 0}
    for name, own in (("trained", {}), ("a", {"temperature": 0.2, "eos_token_id": 3})):
        if own:
            (folder / "generation_config.json").write_text(json.dumps(own))
        convert(tmp_path / name, tmp_path / f"{name}2", "upstream", BIG)
        written = json.loads((tmp_path / f"{name}2" / "generation_config.json").read_text())
        assert written == ids | own


@pytest.mark.parametrize("kind", [LlamaForCausalLM, Qwen2ForCausalLM])
def test_a_folder_that_transformers_saved_again_comes_back(tmp_path, kind):
    if kind is LlamaForCausalLM:
        source, _ = llada_folder(tmp_path / "a")
    else:
        shapes = {spec.upstream: spec.shape for spec in DREAM.tensors(DREAM.sizes(DREAM_CONFIG))}
        source = write_folder(tmp_path / "a", DREAM_CONFIG, random_tensors(shapes))
    convert(source, tmp_path / "b", "transformers", BIG)
    kind.from_pretrained(tmp_path / "b", dtype=torch.float32).save_pretrained(tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "d", "upstream", 10**9)
    ids = torch.randint(3, 52, (2, 9), generator=torch.Generator().manual_seed(0))
    found, wanted = (
        load_model(str(place), torch.device("cpu"), torch.float32)(ids).logits
        for place in (tmp_path / "d", source)
    )
    assert torch.equal(found, wanted)
