"""Dream against its architecture written out, its shift, and what runs through it."""

import json
import math

import pytest
import torch
from adapters import load
from small_cold_start import trainer
from torch.testing import assert_close
from transformers import AutoModelForMaskedLM, Qwen2ForCausalLM
from upstream_checkpoint import dream_folder

from weft_rl.config.model import LoraConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.families.base import SIZE_FIELDS
from weft_rl.families.dream import DREAM
from weft_rl.models import DreamConfig, DreamForMaskedLM
from weft_rl.models.loading import fresh_model, with_lora
from weft_rl.models.modeling_dream import source_positions
from weft_rl.models.toy import SYMBOLS, tiny_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.sampler import generate
from weft_rl.trainers.entropy_pass import entropy_pass

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return dream_folder(tmp_path / "dream")[0]


def tiny_dream(**changes):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 3}
    more = {"num_key_value_heads": 1, "intermediate_size": 24, "bos_token_id": 2}
    return fresh_model(DreamConfig(vocab_size=len(SYMBOLS), **ids, **sizes, **more, **changes), 0)


def some_ids(rows=2, length=7):
    return torch.randint(3, 52, (rows, length), generator=torch.Generator().manual_seed(5))


def next_token_logits(weights, ids):
    """The published architecture for one row, unshifted: 4 heads of 6, two of keys and values."""

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weights[name + ".weight"]

    def linear(x, name):
        return x @ weights[name + ".weight"].T + weights.get(name + ".bias", 0)

    x = weights["model.embed_tokens.weight"][ids]
    for n in range(2):
        layer = f"model.layers.{n}."
        normed = norm(x, layer + "input_layernorm")
        q, k, v = (linear(normed, f"{layer}self_attn.{name}_proj") for name in "qkv")
        parts = []
        for head in range(4):
            shared = head // 2  # two heads to one of keys and values
            turned = []
            for part in (q[:, head * 6 : head * 6 + 6], k[:, shared * 6 : shared * 6 + 6]):
                out = part.clone()
                for position in range(len(ids)):
                    for i in range(3):
                        angle = position * 50.0 ** (-2 * i / 6)
                        a, b = part[position, i], part[position, i + 3]
                        out[position, i] = a * math.cos(angle) - b * math.sin(angle)
                        out[position, i + 3] = b * math.cos(angle) + a * math.sin(angle)
                turned.append(out)
            values = v[:, shared * 6 : shared * 6 + 6]
            parts.append((turned[0] @ turned[1].T / math.sqrt(6)).softmax(-1) @ values)
        x = x + linear(torch.cat(parts, dim=1), layer + "self_attn.o_proj")
        normed = norm(x, layer + "post_attention_layernorm")
        gate = linear(normed, layer + "mlp.gate_proj")
        gated = gate * gate.sigmoid() * linear(normed, layer + "mlp.up_proj")
        x = x + linear(gated, layer + "mlp.down_proj")
    return linear(norm(x, "model.norm"), "lm_head")


def test_logits_equal_the_architecture_written_out_and_shifted(folder):
    model, ids = load(folder), some_ids()
    with torch.no_grad():
        found = model(ids).logits
    for row in range(2):
        logits = next_token_logits(model.state_dict(), ids[row])
        # the output at i - 1 predicts i, and position 0 predicts itself
        wanted = torch.stack([logits[0], logits[0], *logits[1:-1]])
        assert_close(found[row], wanted, atol=1e-4, rtol=1e-4)


def test_sources_of_a_padded_row():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    # the first visible position, 2, predicts itself
    assert source_positions(5, mask, CPU)[0, 2:].tolist() == [2, 2, 3]
    assert source_positions(5, mask, CPU)[1].tolist() == [0, 0, 1, 2, 3]
    assert source_positions(5, None, CPU).tolist() == [[0, 0, 1, 2, 3]]


def test_transformers_own_class_computes_the_same(folder, tmp_path):
    convert(folder, tmp_path / "plain", "transformers", 10**9)
    plain = Qwen2ForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    ids = some_ids()
    with torch.no_grad():
        logits, found = plain(ids).logits, load(folder)(ids).logits
    assert_close(found[:, 1:], logits[:, :-1], atol=2e-5, rtol=1e-5)


def test_left_padding_changes_nothing(folder):
    model, ids = load(folder), some_ids(1)
    padded = torch.cat([torch.full((1, 3), 1), ids], dim=1)
    mask = torch.tensor([[0, 0, 0] + [1] * 7])
    with torch.no_grad():
        found = model(padded, attention_mask=mask).logits[:, 3:]
        assert_close(found, model(ids).logits, atol=1e-5, rtol=1e-4)


def test_the_head_only_where_it_is_asked_for(folder):
    model, ids = load(folder), some_ids()
    with torch.no_grad():
        whole = model(ids).logits
        assert_close(model(ids, logits_to_keep=torch.tensor([4, 0])).logits, whole[:, [4, 0]])
        each = model(ids, logits_to_keep=torch.tensor([[0], [6]])).logits
        assert_close(each[:, 0], torch.stack([whole[0, 0], whole[1, 6]]))
        rows, places = torch.tensor([1, 1, 0]), torch.tensor([3, 0, 6])
        single = model(ids, logits_to_keep=(rows, places)).logits
        assert_close(single, whole[rows, places])


def test_saved_and_loaded_it_is_the_same(folder, tmp_path):
    model, ids = load(folder), some_ids()
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")
    assert type(again) is DreamForMaskedLM
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert torch.equal(load(tmp_path / "saved")(ids).logits, model(ids).logits)


def test_the_estimate_pass_sees_aligned_logits(folder):
    model, x0 = load(folder), some_ids()
    answer = torch.zeros_like(x0, dtype=torch.bool)
    answer[0, 3:6], answer[1, 2:] = True, True
    found = entropy_pass(model, x0, torch.ones_like(x0), answer, 0)
    with torch.no_grad():
        log_p = model(x0.masked_fill(answer, 0)).logits.log_softmax(-1)
        wanted = -(log_p.exp() * log_p).sum(-1) * answer
    assert_close(found, wanted)


def test_the_sampler_reads_its_own_tokens_back(folder):
    """One token a step, greedy: the last token committed is the model's choice given all others."""
    model = load(folder)
    prompt = torch.cat([torch.full((1, 2), 1), some_ids(1, 4)], dim=1)
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


def test_the_cold_start_trains_it(tmp_path):
    made = trainer(tmp_path, "sqrt_entropy", model=tiny_dream(), batch=8)
    made.args.max_steps = made.args.save_steps = 30
    made.train()
    losses = [row["loss"] for row in made.state.log_history if "loss" in row]
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def test_adapters_find_their_modules(folder, tmp_path):
    model = load(folder)
    lora = LoraConfig(2, targets=["q_proj", "down_proj"])
    adapted = with_lora(model, lora, str(folder), tmp_path)
    names = [name for name, _ in adapted.named_parameters() if "lora_A" in name]
    assert len(names) == 2 * 2
    with pytest.raises(UserError, match=r"targets: .*lm_head.*down_proj, gate"):
        with_lora(load(folder), LoraConfig(2, targets=["lm_head"]), str(folder), tmp_path)


def test_parameters_of_the_published_model():
    with torch.device("meta"):
        sizes = DREAM.published_sizes
        config = DreamConfig(**{name: getattr(sizes, name) for name in SIZE_FIELDS})
        model = DreamForMaskedLM(config)
    # 152064 * 3584 * 2 + 28 * (2 * 3584^2 + 2 * 3584 * 512 + 3 * 3584 * 18944 + 3584 + 2 * 512
    # + 2 * 3584) + 3584
    assert DREAM.count(sizes) == 7_615_616_512
    assert sum(p.numel() for p in model.parameters()) == 7_615_616_512


@pytest.mark.slow
def test_the_pipeline_from_a_folder(tmp_path):
    """Cold start, RL with an adapter on it, and evaluation, from a published folder's files."""
    folder, out = tmp_path / "dream", tmp_path / "run"
    tiny_dream(max_position_embeddings=256).save_pretrained(folder)
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
