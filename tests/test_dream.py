"""Dream's shift, and what runs through it; test_model.py has its architecture."""

import json

import pytest
import torch
from adapters import load
from upstream_checkpoint import dream_folder

from weft_rl.config.sampler import SamplerConfig
from weft_rl.convert import convert
from weft_rl.models import DreamConfig, DreamForMaskedLM
from weft_rl.models.loading import fresh_model
from weft_rl.models.modeling_a2d import source_positions
from weft_rl.models.toy import SYMBOLS, tiny_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.sampler import generate

CPU = torch.device("cpu")


def test_sources_of_a_padded_row():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    # the first visible position, 2, predicts itself
    assert source_positions(5, mask, CPU)[0, 2:].tolist() == [2, 2, 3]
    assert source_positions(5, mask, CPU)[1].tolist() == [0, 0, 1, 2, 3]
    assert source_positions(5, None, CPU).tolist() == [[0, 0, 1, 2, 3]]


def test_the_sampler_reads_its_own_tokens_back(tmp_path):
    """One token a step, greedy: the last token committed is the model's choice given all others."""
    model = load(dream_folder(tmp_path / "dream")[0])
    prompt = torch.cat([torch.full((1, 2), 1), torch.tensor([[9, 40, 3, 17]])], dim=1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    sampler = SamplerConfig(6, 6, 6, early_stop=False, trace=True)
    out = generate(model, prompt, sampler, mask)
    last = out.trace[0][-1]["position"]
    canvas = out.tokens[:, 2:].clone()
    canvas[0, 4 + last] = 0
    with torch.no_grad():
        logits = model(canvas).logits[0, 4 + last]
    logits[0] = -torch.inf
    assert logits.argmax() == out.completions[0, last]
    # padding or none, the row is the same
    alone = generate(model, prompt[:, 2:], sampler)
    assert torch.equal(alone.completions, out.completions)


@pytest.mark.slow
def test_the_pipeline_from_a_folder(tmp_path):
    """Cold start, RL with an adapter on it, and evaluation, from a published folder's files."""
    folder, out = tmp_path / "dream", tmp_path / "run"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 256}
    ids = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 3}
    config = DreamConfig(vocab_size=len(SYMBOLS), bos_token_id=2, **ids, **sizes)
    fresh_model(config, 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    for path in folder.glob("tokenizer*.json"):
        path.write_text(path.read_text().replace("<|mdm_mask|>", "<|mask|>"))
    few = ["cold_start.records=8", "cold_start.epochs=1", "cold_start.batch_size=4"]
    few += ["rl.num_prompts=2", "rl.num_generations=2", "rl.num_iterations=2", "rl.max_steps=2"]
    few += ["eval.num_records=2", "cold_start.lora.r=2", "rl.lora.r=2", "sampler.steps=4"]
    assert main([f"model={folder}", "preset=tiny", "stages=[weft,rl]", *few, f"out={out}"]) == 0
    assert list(json.loads((out / "eval.json").read_text())) == ["weft", "rl"]
    last = out / "checkpoints" / "rl" / "step-2"
    done = convert(last, tmp_path / "merged", "upstream", 10**9)
    assert done.tensors == 3 + 12
    assert type(load(tmp_path / "merged")) is DreamForMaskedLM
