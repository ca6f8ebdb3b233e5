"""The cold start's trainer against its formula assembled by hand, and against itself."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import TrainingArguments

from weft_rl.config.schema import BaseConfig
from weft_rl.data.tiny_world import cold_start_traces
from weft_rl.data.traces import encode_traces
from weft_rl.diffusion.noise import TIME_MARGIN
from weft_rl.models.loading import fresh_model
from weft_rl.models.tokenizer import tiny_config, tiny_tokenizer
from weft_rl.runs import newest_checkpoint
from weft_rl.seeding import seed_for
from weft_rl.trainers.cold_start import AnswerCollator, ColdStartTrainer, Objective


def small_model():
    size = BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    return fresh_model(tiny_config(size), 0)


def examples():
    model = small_model()
    end = model.config.eot_token_id
    return encode_traces(cold_start_traces(8, 0), tiny_tokenizer(), "tiny", end, 200)[0]


def trainer(
    tmp_path,
    rates="uniform",
    *,
    batch=4,
    accumulate=1,
    model=None,
    slope=False,
    optim="adamw_torch",
):
    made = ColdStartTrainer(
        model=model or small_model(),
        args=TrainingArguments(
            output_dir=str(tmp_path / "scratch"),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            max_steps=6,
            optim=optim,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulate,
            learning_rate=1e-2,
            logging_steps=1,
            save_steps=3,
            remove_unused_columns=False,
        ),
        train_dataset=examples(),
        data_collator=AnswerCollator(1),
        processing_class=tiny_tokenizer(),
        objective=Objective(rates, slope=slope),
        seed=7,
    )
    made.run, made.stage = tmp_path, "sft"
    return made


def logs(made):
    names = ("loss", "grad_norm", "mask_fraction", "beta_ref")
    rows = [row for row in made.state.log_history if "loss" in row]
    return [[row[name] for name in names] for row in rows]


def test_sft_is_lladas_loss(tmp_path):
    """Sum over masked tokens of -log p / t, over the answer's length, mean over the batch."""
    made = trainer(tmp_path)
    chosen = examples()[:3]
    batch = made.data_collator(chosen)
    wanted = []
    for example in chosen:
        ids = torch.tensor(example.ids)
        generator = torch.Generator().manual_seed(seed_for(7, "mask", 0, example.index))
        t = TIME_MARGIN + (1 - 2 * TIME_MARGIN) * torch.rand(1, generator=generator)
        masked = torch.zeros(len(ids), dtype=torch.bool)
        length = len(ids) - example.prompt_length
        masked[example.prompt_length :] = torch.rand(length, generator=generator) < t
        logits = made.model(ids.masked_fill(masked, made.model.config.mask_token_id)[None]).logits
        nll = F.cross_entropy(logits[0], ids, reduction="none")
        wanted.append(nll[masked].sum() / t / length)
    found = made.compute_loss(made.model, batch)
    assert_close(found, torch.stack(wanted).mean().squeeze(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rates", ["uniform", "sqrt_entropy"])
def test_accumulation_equals_the_larger_batch(tmp_path, rates):
    # plain gradient descent: Adam turns rounding noise of tiny gradients into steps
    whole = trainer(tmp_path / "a", rates, batch=4, accumulate=1, optim="sgd")
    parts = trainer(tmp_path / "b", rates, batch=1, accumulate=4, optim="sgd")
    whole.train()
    parts.train()
    assert_close(
        torch.tensor([row[:2] for row in logs(whole)]),
        torch.tensor([row[:2] for row in logs(parts)]),
        atol=1e-4,  # the Trainer rounds what it logs
        rtol=1e-4,
    )
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("slope", [False, True])
def test_equal_rates_are_sft(tmp_path, slope):
    """A model that is equally unsure of every token gives all tokens one rate."""
    flat = small_model()
    with torch.no_grad():
        flat.get_output_embeddings().weight.zero_()
    batch = trainer(tmp_path, model=flat).data_collator(examples()[:4])
    sft = trainer(tmp_path, "uniform", model=flat).compute_loss(flat, batch)
    weft = trainer(tmp_path, "sqrt_entropy", model=flat, slope=slope).compute_loss(flat, batch)
    assert_close(sft, weft, atol=1e-4, rtol=1e-4)


def test_unequal_rates_are_not_sft(tmp_path):
    model = small_model()
    with torch.no_grad():  # sure of some tokens, unsure of others
        model.get_output_embeddings().weight.mul_(20)
    batch = trainer(tmp_path, model=model).data_collator(examples()[:4])
    sft = trainer(tmp_path, "uniform", model=model).compute_loss(model, batch)
    weft = trainer(tmp_path, "sqrt_entropy", model=model).compute_loss(model, batch)
    assert abs(float(sft.detach() - weft.detach())) > 1e-3


def test_the_estimate_pass_sees_no_answer_and_leaves_the_mode(tmp_path):
    made = trainer(tmp_path, "sqrt_entropy")
    made.model.train()
    batch = made.data_collator(examples()[:4])
    other = dict(batch, x0=batch["x0"].masked_fill(batch["answer"], 20))
    assert torch.equal(
        made.estimate_rates(made.model, batch), made.estimate_rates(made.model, other)
    )
    assert made.model.training


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path):
    """8 examples in batches of 4 are 2 steps an epoch: step 3 lies in the middle of the second."""
    whole = trainer(tmp_path / "whole", "sqrt_entropy")
    whole.train()
    first = trainer(tmp_path / "cut", "sqrt_entropy")
    first.add_callback(stop_after(3))
    first.train()
    kept = newest_checkpoint(tmp_path / "cut", "sft")
    assert kept is not None
    assert kept.name == "step-3"
    second = trainer(tmp_path / "cut", "sqrt_entropy")
    second.train(resume_from_checkpoint=str(kept))
    assert logs(second) == logs(whole)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def stop_after(step):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == step

    return Stop()
