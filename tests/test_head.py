"""A head in parts against all logits at once: values, gradients, and the memory they take."""

import pytest
import torch
from allocations import allocated
from rl_trainer import options
from rl_trainer import rollout as rl_rollout
from rl_trainer import step_loss as rl_loss
from rl_trainer import trainer as rl_trainer
from small_cold_start import examples, small_model, trainer
from torch.nn import functional as F
from torch.testing import assert_close

from weft_rl.config.model import LoraConfig
from weft_rl.diffusion.log_probs import masked_nll
from weft_rl.diffusion.logprob_estimators import MaskedViews
from weft_rl.diffusion.losses import denoising_loss
from weft_rl.models import DreamConfig, LLaDAConfig
from weft_rl.models import lm_head as head
from weft_rl.models.loading import fresh_model, with_lora
from weft_rl.trainers.masked_log_probs import RolloutBatch, view_log_probs


@pytest.fixture
def few_together(monkeypatch):
    """So few logits at a time that a tiny model's take many parts, the last one ragged."""
    monkeypatch.setattr(head, "LOGITS_TOGETHER", 300)


def dream():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"mask_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 3}
    more = {"vocab_size": 58, "intermediate_size": 32, "num_key_value_heads": 1}
    return fresh_model(DreamConfig(**sizes, **ids, **more, eot_token_id=4), 0)


def adapted():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        made = with_lora(small_model(), LoraConfig(2, targets=["q_proj"]), "x", "y")
    with torch.no_grad():  # fresh adapters do nothing
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    return made


def gradients(model):
    found = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


@pytest.mark.usefixtures("few_together")
@pytest.mark.parametrize("make", [small_model, adapted, dream])
def test_in_parts_the_loss_and_its_gradients_are_those_of_all_logits(make, tmp_path):
    model = make()
    batch = trainer(tmp_path).data_collator(examples()[:3])
    x0, answer, visible = batch["input_ids"], batch["labels"] != -100, batch["attention_mask"]
    assert not visible.all()
    masked = answer & (torch.rand(x0.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    xt = x0.masked_fill(masked, 0)
    logits = model(input_ids=xt, attention_mask=visible).logits
    naive = F.cross_entropy(logits.flatten(0, 1), x0.flatten(), reduction="none").view(x0.shape)
    wanted = denoising_loss(logits, x0, masked, torch.full(x0.shape, 0.5), answer)
    wanted.backward()
    wanted_gradients = gradients(model)
    nll = masked_nll(model, x0, xt, masked, visible)
    assert_close(nll, naive.where(masked, 0.0), atol=1e-6, rtol=1e-6)
    found = torch.where(masked, nll / 0.5, 0.0).sum(-1) / answer.sum(-1)
    found.mean().backward()
    assert_close(found.mean(), wanted, atol=1e-6, rtol=1e-6)
    assert_close(gradients(model), wanted_gradients, atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("few_together")
def test_nothing_masked_has_a_loss_of_zero_and_gradients(tmp_path):
    model, batch = small_model(), trainer(tmp_path).data_collator(examples()[:2])
    masked = torch.zeros_like(batch["labels"] != -100)
    nll = masked_nll(model, batch["input_ids"], batch["input_ids"], masked, batch["attention_mask"])
    nll.sum().backward()
    assert not nll.any()
    assert all(gradient.eq(0).all() for gradient in gradients(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "accumulate"),
    [("none", 1), ("own_probability", 2), ("excess_loss", 1), ("sqrt_entropy", 2)],
)
def test_training_in_parts_is_training(tmp_path, monkeypatch, weights, accumulate):
    """Weights after six steps: those of the estimate pass and of the reference go in parts too."""
    made = []
    for together in (2**25, 300):
        monkeypatch.setattr(head, "LOGITS_TOGETHER", together)
        other = fresh_model(small_model().config, 5) if weights == "excess_loss" else None
        given = {"batch": 4 // accumulate, "accumulate": accumulate, "optim": "sgd"}
        run = trainer(tmp_path / str(together), "uniform", weights, reference=other, **given)
        run.train()
        made.append([*run.model.parameters()])
    assert_close(made[0], made[1], atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["one_step", "elbo"])
@pytest.mark.parametrize("lora", [False, True])
def test_rl_in_parts_is_rl(tmp_path, monkeypatch, lora, estimator):
    made, given = [], {"loss_type": "gspo", "loss": {"kl_estimator": "k2_sequence"}}
    given = given if estimator == "elbo" else {}
    for together in (2**25, 300):
        monkeypatch.setattr(head, "LOGITS_TOGETHER", together)
        chosen = options(estimator=estimator, kl_coef=0.04, num_iterations=2, **given)
        run = rl_trainer(tmp_path, chosen, lora=lora)
        slices = rl_rollout(run)
        made.append([slices[0]["ref_log_probs"], *rl_loss(run, slices, 1)])
    assert_close(made[0], made[1], atol=1e-6, rtol=1e-5)


def wide(monkeypatch):
    """A model whose logits are the most of its memory, of which 32 positions' are made at a time;
    and the bytes of so many."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ids = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = LLaDAConfig(vocab_size=4096, intermediate_size=8, **sizes, **ids)
    monkeypatch.setattr(head, "LOGITS_TOGETHER", 32 * 4096)
    made = with_lora(fresh_model(config, 0), LoraConfig(2, targets=["q_proj"]), "x", "y")
    return made, 4 * 32 * 4096


def assert_one_part(peak, short, long, part, most, more):
    """peak: bytes for an input of some size. Four times the positions take no more memory but for
    their hidden states."""
    short, long = peak(*short), peak(*long)
    assert 2 * part < short < most * part
    assert long - short < more * part


def test_the_loss_takes_the_memory_of_one_part(monkeypatch):
    model, part = wide(monkeypatch)

    def peak(length):
        x0 = torch.full((1, length), 5)
        everything, visible = torch.ones_like(x0).bool(), torch.ones_like(x0)
        return allocated(lambda: masked_nll(model, x0, x0, everything, visible).sum().backward())

    # logits, log-probabilities and their gradient
    assert_one_part(peak, (128,), (512,), part, 3.5, 0.5)


def test_rl_log_probs_take_the_memory_of_one_part(monkeypatch):
    model, part = wide(monkeypatch)

    def peak(rows, length):
        """Of completions that are all different."""
        ids = torch.arange(rows * length).view(rows, length) % 4000 + 2
        every, seeds = torch.ones_like(ids), torch.arange(rows)
        made = RolloutBatch(ids[:, :2], every[:, :2], ids, every.bool(), ids, None)
        views = MaskedViews(every.bool()[:, None], every[:, None].float())
        options = {"prompt_probability": 0.5, "mask_id": 0}
        return allocated(
            lambda: view_log_probs(model, made, views, seeds, **options)[0].sum().backward()
        )

    # and the entropy's two copies
    assert_one_part(peak, (8, 16), (8, 64), part, 5.5, 0.6)
