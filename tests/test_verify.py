"""`verify`: facts, warnings and defects of checkpoints whose answers are known by hand."""

import json
from math import exp, log

import pytest
import torch
from a2d_models import causal_folder, chat_bpe
from adapters import adapter
from bpe import llada_bpe
from run_folders import flip, write_lines
from safetensors.torch import load_file, save_file
from tiny_model import write_bpe_model, write_model
from verified import chatml_without_mask, facts, write_llama, write_oracle

from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.convert import convert
from weft_rl.data.text import TextEncoder
from weft_rl.errors import UserError
from weft_rl.evaluation.likelihood import unigram_entropy
from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.loading import fresh_model, load_model
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.runs.checksums import write_checksums
from weft_rl.verify.command import main
from weft_rl.verify.network import estimates
from weft_rl.verify.probes import ENGLISH

SECTIONS = ["versions", "checkpoint", "tokenizer", "chat template", "generations", "NELBO"]


def check(capsys, place, *words):
    status = main([f"model={place}", "device=cpu", "gen_length=8", *words])
    text = capsys.readouterr().out
    return status, facts(text), text.rpartition("\n\n")[2].splitlines()


def english_ids(length=128):
    return TextEncoder(llada_bpe()).texts([ENGLISH])[0][:length]


def known_by_heart(strength):
    ids = english_ids()
    rows = torch.zeros(len(ids), len(llada_bpe()))
    rows[range(len(ids)), ids] = strength
    return rows


def test_a_model_that_knows_the_text_is_fine(tmp_path, capsys):
    folder, rows = tmp_path / "model", known_by_heart(5.0)
    status, found, last = check(capsys, write_oracle(folder, rows))
    assert (status, last) == (0, ["ok"])
    assert [*found] == SECTIONS
    # -log softmax of the right token, at every position: log(1 + (V - 1) e^-5)
    vocabulary = len(llada_bpe())
    nats = log(1 + (vocabulary - 1) * exp(-5))
    nelbo = found["NELBO"]
    assert nelbo["NELBO"].startswith(f"{nats:.3f} nats per token, standard error 0.000")
    assert nelbo["unigram"].startswith(f"{unigram_entropy([english_ids()]):.3f},")
    assert nelbo["uniform"].startswith(f"{log(vocabulary):.3f},")
    assert found["chat template"]["prefix"].startswith("yes")
    assert found["chat template"]["opens"].startswith("'<|start_header_id|>assistant")
    assert found["tokenizer"]["mask in text"] == "stays text"
    assert found["tokenizer"]["round trip"].startswith("exact")
    assert found["checkpoint"]["folder"] == str(folder)


def test_the_nelbo_is_of_the_answers_alone(tmp_path):
    rows = torch.randn(9, len(llada_bpe()), generator=torch.Generator().manual_seed(0))
    model = load_model(write_oracle(tmp_path / "model", rows))
    pairs = [([5, 6, 7], [8, 9, 10, 11]), ([], [12])]
    # of each position alone, whatever is masked
    nats = -rows.log_softmax(-1)
    expected = sum(nats[3 + i, 8 + i] for i in range(4)) + nats[0, 12]
    values = estimates(model, pairs, 400, 2, seed=0)
    assert values.mean().item() == pytest.approx(expected.item(), rel=0.02)
    assert values[0] != values[1]


def test_a_model_that_is_not_adapted(tmp_path, capsys):
    """Better than uniform, but not than the frequencies."""
    place = write_oracle(tmp_path / "model", known_by_heart(1.0))
    status, _, (warning, verdict) = check(capsys, place)
    assert (status, verdict) == (0, "ok, 1 warning: NELBO")
    assert warning.startswith("warning: NELBO: ")


@pytest.mark.parametrize("strength", [-3.0, float("nan")])
def test_weights_worse_than_none(strength, tmp_path, capsys):
    place = write_oracle(tmp_path / "model", known_by_heart(strength))
    status, _, last = check(capsys, place)
    assert status == 2
    assert last[-1] in ("1 problem: NELBO", "2 problems: generations, NELBO")
    assert any(line.startswith("problem: NELBO: ") for line in last)


@pytest.fixture
def run(tmp_path):
    config = load_run_config(["preset=tiny"], command="it")
    run = tmp_path / "run"
    write_model(run / "checkpoints" / "rl" / "step-2")
    (run / "config.yaml").write_text(to_yaml(config) + "versions: {}\nrevision: unknown\n")
    (run / "stages.json").write_text(json.dumps({"rl": "checkpoints/rl/step-2"}))
    return run


def test_a_run_of_the_tiny_model(run, capsys):
    status, found, last = check(capsys, run)
    checkpoint = found["checkpoint"]
    assert checkpoint["run"] == f"{run}, stage rl, step-2"
    # 53 symbols and 256 positions of width 16, head; 4 * 16^2, 3 * 16 * 128 and 2 * 16; last norm
    assert checkpoint["parameters"] == f"{(53 * 2 + 256) * 16 + 4 * 256 + 3 * 16 * 128 + 48:,}"
    assert checkpoint["family"].startswith("llada")
    assert (found["tokenizer"]["tokens"], found["tokenizer"]["mask"]) == (
        "53; the embedding has 53 rows",
        "'<|mdm_mask|>' (0)",
    )
    assert found["tokenizer"]["round trip"].startswith("no")
    # its own puzzles, since it has no English; the weights are random
    assert found["NELBO"]["text"].startswith("the tiny model's puzzles")
    assert (status, last[-1]) == (2, "1 problem: NELBO, 1 warning: tokenizer")


def test_an_adapter_is_merged(tmp_path, capsys):
    base = write_bpe_model(tmp_path / "base")
    folder = adapter(base, tmp_path / "adapter", 0)
    llada_bpe().save_pretrained(folder)
    _, found, _ = check(capsys, folder)
    assert found["checkpoint"]["adapters"] == f"1, merged into {base}"


def test_a_damaged_or_foreign_checkpoint(tmp_path, capsys):
    folder = write_bpe_model(tmp_path / "model")
    convert(folder_with_rope(tmp_path / "rope"), tmp_path / "export", "transformers", 10**9)
    with pytest.raises(UserError, match="weft-rl convert"):
        check(capsys, tmp_path / "export")
    tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(UserError, match=f"^model={folder}: the tokenizer has 53 tokens"):
        check(capsys, folder)
    assert "parameters" in facts(capsys.readouterr().out)["checkpoint"]
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        check(capsys, folder)
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UserError, match="mamba"):
        check(capsys, folder)


def folder_with_rope(folder):
    write_model(folder, rope=True)
    return folder


def test_checksums(tmp_path, capsys):
    causal, _ = write_llama(tmp_path / "causal", chatml_without_mask())
    for folder in (write_bpe_model(tmp_path / "model"), causal):
        write_checksums(folder)
        checksums = check(capsys, folder)[1]["checkpoint"]["checksums"]
        assert checksums == "SHA256SUMS verified"
        flip(folder / "model.safetensors")
        with pytest.raises(UserError, match=r"model\.safetensors"):
            check(capsys, folder)
        capsys.readouterr()


def test_an_autoregressive_model(tmp_path, capsys):
    tokenizer = chatml_without_mask()
    folder, expected = write_llama(tmp_path / "causal", tokenizer)
    status, found, last = check(capsys, folder)
    assert (status, last) == (0, ["ok"])
    assert [*found] == SECTIONS[:4]
    assert "autoregressive" in found["checkpoint"]["family"]
    assert f"model={folder} stages=[a2d," in found["checkpoint"]["to adapt it"]
    assert found["checkpoint"]["parameters"].startswith(f"{expected + 32:,}, with a row for")
    assert found["tokenizer"]["mask"] == f"'<|mask|>' ({len(tokenizer)})"
    assert "added on loading" in found["tokenizer"]["in the files"]
    assert "Be helpful" in found["chat template"]["system"]
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"missing tensors: model\.norm\.weight"):
        check(capsys, folder)


def test_a_diffusion_model_without_a_mask_token(tmp_path, capsys):
    folder, _ = write_llama(tmp_path / "model", chatml_without_mask(), is_causal=False)
    status, found, last = check(capsys, folder)
    assert (status, found["checkpoint"]["family"].partition(",")[0]) == (2, "a2d-llama")
    assert sum(line.startswith("problem: tokenizer: ") for line in last) == 1
    assert "generations" in found


def test_a_guessed_mask_token(tmp_path, capsys):
    """Rows beyond the tokenizer: one of them may be the mask's, but no file says so."""
    guessed = {"is_causal": False, "guessed_mask_token": True}
    folder = causal_folder(tmp_path / "model", spare=5, **guessed)
    _, found, last = check(capsys, folder)
    assert found["tokenizer"]["in the files"] == "no mask token"
    (line,) = [line for line in last if line.startswith("warning: tokenizer: ")]
    assert f"id {len(chat_bpe())}, the next free one, is a guess" in line
    assert not any(line.startswith("problem: tokenizer: ") for line in last)


@pytest.mark.parametrize(
    "words",
    [
        *(["model=tiny"], ["model=a/b/c"], ["num_mc_samples=12"], ["data=a.jsonl"]),
        *(["gen_length=0"], ["gsm8k=1", "data=none.jsonl"]),
    ],
)
def test_mistakes(words, capsys):
    key = words[-1].partition("=")[0].replace("data", "(data|none)")
    with pytest.raises(UserError, match=rf"^{key}"):
        main(["device=cpu", *(["a/b/c"] if words[0][:5] != "model" else []), *words])


def test_a_score_on_problems_of_a_file(tmp_path, capsys):
    rows = [{"question": f"What is {i} + {i}?", "answer": f"#### {2 * i}"} for i in range(3)]
    data = write_lines(tmp_path / "gsm8k.jsonl", rows)
    folder = write_bpe_model(tmp_path / "LLaDA-8B-Instruct")
    write_model_with_positions(folder, 1024)
    _, found, _ = check(capsys, folder, "gsm8k=2", f"data={data}")
    entry = found["GSM8K"]
    # Wilson's interval of 0 of 2: [0, z^2 / (2 + z^2)]
    assert entry["score"].startswith(f"0.0% [0.0, {100 * 1.96**2 / (2 + 1.96**2):.1f}]")
    assert entry["problems"] == f"the first 2 of {data}"
    assert entry["published"].startswith("76.7%, WeFT, Table 1; the same settings 78.6%, LLaDA,")


def write_model_with_positions(folder, count):
    config = json.loads((folder / "config.json").read_text())
    options = LLaDAConfig.from_dict(
        config | {"max_position_embeddings": count, "max_sequence_length": count}
    )
    fresh_model(options, 0).save_pretrained(folder)
