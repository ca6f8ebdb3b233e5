"""On a CUDA device everything is what it is on the CPU. Skipped where there is none."""

from dataclasses import replace

import pytest
import torch
from rl_trainer import G, disturb
from rl_trainer import options as rl_options
from rl_trainer import trainer as rl_trainer
from sampler_models import llada, prompts
from small_cold_start import logs, trainer
from upstream_checkpoint import llada_folder

from weft_rl.config.model import LoraConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.models.loading import load_model, with_lora
from weft_rl.sampler import generate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"temperature": 1.0, "cfg_scale": 0.5},
        {"cache": "prefix", "remasking": "random"},
        {"cache": "dual", "refresh_every": 2, "temperature": 1.0},
        {"cache": "dual", "threshold": 0.3},
        {"temperature": 1.0, "compile": True},
    ],
)
def test_the_sampler_draws_the_same_tokens(chosen):
    import random

    ids, visible = prompts(random.Random(3), 6, 9, spare=2)
    config = SamplerConfig(12, 4, 12, **chosen)
    model = llada().double()
    expected = generate(model, ids, replace(config, compile=False), visible, batch_size=4)
    # compiled as float32: the CUDA graph is what is tried
    model = (model.float() if config.compile else model).to(CUDA)
    found = generate(model, ids.to(CUDA), config, visible.to(CUDA), batch_size=4)
    assert found.tokens.device.type == "cuda"
    assert found.tokens.cpu().equal(expected.tokens)
    assert found.lengths.cpu().equal(expected.lengths)


@pytest.mark.parametrize("rates", ["uniform", "sqrt_entropy"])
def test_a_cold_start_takes_the_same_steps(tmp_path, rates):
    found = []
    for use_cpu in (True, False):
        made = trainer(tmp_path, rates, use_cpu=use_cpu, optim="sgd")
        made.train()
        found.append(torch.tensor(logs(made)))
    assert next(made.model.parameters()).device.type == "cuda"
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lora", [False, True])
def test_a_rollout_and_its_loss_are_the_same(tmp_path, lora):
    chosen = rl_options(num_iterations=2, kl_coef=0.04)
    found = []
    for use_cpu in (True, False):
        made = rl_trainer(tmp_path, chosen, lora=lora, use_cpu=use_cpu)
        made.model.train()
        rows = [made.train_dataset[i] for i in (0, 1) for _ in range(G)]
        (scored,) = made.micro_batches(made.make_rollout(rows))
        disturb(made.model)
        loss = made.pass_loss(made.model, scored, 1)
        loss.backward()
        trained = [p for p in made.model.parameters() if p.requires_grad]
        gradients = [p.grad.cpu() for p in trained]
        found.append((scored["completion_ids"].cpu(), loss.detach().cpu(), gradients))
    assert found[1][0].equal(found[0][0])
    torch.testing.assert_close(found[1][1:], found[0][1:], rtol=1e-3, atol=1e-5)


def test_four_bit_weights_take_an_adapter(tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    folder, _ = llada_folder(tmp_path / "model", d_model=64, n_heads=2, n_kv_heads=2)
    wide = load_model(str(folder), CUDA, torch.bfloat16)
    model = load_model(str(folder), CUDA, torch.bfloat16, nf4=True)
    block = model.model.transformer.blocks[0]
    assert isinstance(block.q_proj, bitsandbytes.nn.Linear4bit)
    narrow = block.q_proj.weight
    back = bitsandbytes.functional.dequantize_4bit(narrow.data, narrow.quant_state)
    weight = wide.model.transformer.blocks[0].q_proj.weight
    # NF4 rounds normal weights by 9 % of their spread
    assert 0.05 < (back - weight).float().std() / weight.float().std() < 0.15
    ids = torch.arange(2, 22, device=CUDA)[None]
    adapted = with_lora(model, LoraConfig(2, targets=["q_proj"]), str(folder), tmp_path / "out")
    with torch.autocast("cuda", torch.bfloat16):
        adapted(input_ids=ids).logits.float().logsumexp(-1).sum().backward()
    moved = {n for n, p in adapted.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved
    assert all("lora_" in name for name in moved)
