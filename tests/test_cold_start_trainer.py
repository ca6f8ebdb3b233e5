"""The cold start's trainer against its formula assembled by hand, and against itself."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from small_cold_start import arguments, small_model
from torch.nn import functional as F
from torch.testing import assert_close

from weft_rl.config.schema import COLD_STARTS
from weft_rl.data.sft_examples import encode_traces
from weft_rl.data.toy.tiny import cold_start_traces
from weft_rl.diffusion.noise import TIME_MARGIN
from weft_rl.errors import UserError
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.seeding import seed_for
from weft_rl.trainers.cold_start import ColdStartTrainer
from weft_rl.trainers.collator import AnswerCollator
from weft_rl.diffusion.recipes import RECIPES, Recipe


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
    use_cpu=True,
    **options,
):
    made = ColdStartTrainer(
        model=model or small_model(),
        args=arguments(
            tmp_path,
            optim=optim,
            use_cpu=use_cpu,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulate,
        ),
        train_dataset=examples(),
        data_collator=AnswerCollator(1),
        processing_class=tiny_tokenizer(),
        objective=options.pop("objective", Recipe(rates, slope=slope)),
        seed=7,
        **options,
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


def test_with_slope_the_mean_over_masks_is_the_negative_elbo(tmp_path):
    """The trainer's own draws of t and masks, against the orders of masking enumerated."""
    model = small_model()
    with torch.no_grad():  # large weights: a prediction hangs on what else is masked
        for weight in model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
        model.get_output_embeddings().weight.mul_(5)
    objective = Recipe("sqrt_entropy", normalizer="none", slope=True)
    made = trainer(tmp_path, model=model, objective=objective)
    whole = examples()[0]
    row = made.data_collator([replace(whole, ids=whole.ids[: whole.prompt_length + 4])])
    mask_id, places = model.config.mask_token_id, row["answer"][0].nonzero()[:, 0].tolist()
    ids = row["input_ids"][0]
    with torch.no_grad():
        beta = made.rates(made.estimated(model, row), row["answer"])[0].double()
        wanted = 0.0
        for order in permutations(places):
            chance, total = 1.0, 0.0
            for k, i in enumerate(order):
                chance *= float(beta[i] / beta[list(order[k:])].sum())
                xt = ids.clone()
                xt[list(order[: k + 1])] = mask_id
                total -= float(model(xt[None]).logits[0, i].log_softmax(-1)[ids[i]])
            wanted += chance * total
        batch = {name: value.expand(64, -1) for name, value in row.items()}
        losses = []
        for draw in range(200):
            epochs = torch.arange(64) + 64 * draw
            keys = torch.stack([epochs, torch.zeros_like(epochs)], dim=1)
            losses.append(made.compute_loss(model, dict(batch, keys=keys)).item())
    found = torch.tensor(losses, dtype=torch.float64)
    error = float(found.std() / len(found) ** 0.5)
    assert beta[places].max() / beta[places].min() > 1.5
    assert error < 0.02 * wanted
    # the margin that keeps t from 0 and 1 leaves out two thousandths of its range
    assert abs(float(found.mean()) - wanted) < 3 * error + 0.005 * wanted


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


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 5), (2, 3), (3, 2), (4, 2)])
def test_a_step_is_the_mean_over_its_records_however_it_is_cut(tmp_path, batch, accumulate):
    """A step an epoch of five records, in one batch or in several of different sizes."""
    told = []
    for folder, cut in (("a", (5, 1)), ("b", (batch, accumulate))):
        size = {"batch": cut[0], "accumulate": cut[1]}
        made = trainer(tmp_path / folder, "sqrt_entropy", optim="sgd", **size)
        made.train_dataset = examples()[:5]
        made.train()
        told.append(torch.tensor(logs(made)))
    assert_close(told[1], told[0], atol=1e-4, rtol=1e-4)


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
    other = dict(batch, x0=batch["input_ids"].masked_fill(batch["answer"], 20))
    assert torch.equal(made.estimated(made.model, batch), made.estimated(made.model, other))
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


def by_hand(made, batch, weigh):
    """The uniformly masked loss with `weigh(logits, x0, masked, xt)` as weights, row by row."""
    total = []
    for row in range(len(batch["input_ids"])):
        x0, answer = batch["input_ids"][row], batch["answer"][row]
        generator = torch.Generator().manual_seed(seed_for(7, "mask", *batch["example_ids"][row].tolist()))
        t = TIME_MARGIN + (1 - 2 * TIME_MARGIN) * torch.rand(1, generator=generator)
        masked = torch.zeros(len(x0), dtype=torch.bool)
        masked[answer] = torch.rand(int(answer.sum()), generator=generator) < t
        xt = x0.masked_fill(masked, made.model.config.mask_token_id)
        visible = batch["attention_mask"][row]
        logits = made.model(xt[None], attention_mask=visible[None]).logits[0]
        nll = F.cross_entropy(logits, x0, reduction="none")
        weight = weigh(logits, x0, masked, xt, row)
        total.append((weight * nll)[masked].sum() / t / answer.sum())
    return torch.cat(total).mean()


def test_sw_weighs_by_the_root_of_the_entropy(tmp_path):
    made = trainer(tmp_path, objective=Recipe("uniform", "sqrt_entropy"))
    batch = made.data_collator(examples()[:3])

    def weigh(logits, x0, masked, xt, row):
        hidden = x0.masked_fill(batch["answer"][row], made.model.config.mask_token_id)
        visible = batch["attention_mask"][row][None]
        p = made.model(hidden[None], attention_mask=visible).logits[0].softmax(-1)
        return (-(p * p.log()).sum(-1)).sqrt().detach()

    found = made.compute_loss(made.model, batch)
    assert_close(found, by_hand(made, batch, weigh), atol=1e-5, rtol=1e-4)


def test_dream_weighs_by_the_unmasked_around(tmp_path):
    made = trainer(tmp_path, objective=Recipe("uniform", "dream"))
    batch = made.data_collator(examples()[:3])

    def weigh(logits, x0, masked, xt, row):
        there = range(int(batch["attention_mask"][row].sum()))
        return torch.tensor(
            [
                0.5 * sum(0.3 * 0.7 ** (abs(i - j) - 1) for j in there if j != i and not masked[j])
                for i in range(len(x0))
            ]
        )

    found = made.compute_loss(made.model, batch)
    assert_close(found, by_hand(made, batch, weigh), atol=1e-5, rtol=1e-4)


def test_dft_weighs_by_the_tokens_own_probability(tmp_path):
    made = trainer(tmp_path, objective=Recipe("uniform", "own_probability"))
    batch = made.data_collator(examples()[:3])

    def weigh(logits, x0, masked, xt, row):
        return logits.softmax(-1).gather(-1, x0[:, None])[:, 0].detach()

    found, wanted = made.compute_loss(made.model, batch), by_hand(made, batch, weigh)
    assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    # no gradient through the weight
    one, other = (
        torch.autograd.grad(loss, made.model.get_output_embeddings().weight)[0]
        for loss in (found, wanted)
    )
    assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_rho1_keeps_the_highest_excess_over_the_reference(tmp_path):
    reference = fresh_model(small_model().config, 5)
    made = trainer(tmp_path, objective=Recipe("uniform", "excess_loss"), reference=reference)
    batch = made.data_collator(examples()[:3])

    def weigh(logits, x0, masked, xt, row):
        visible = batch["attention_mask"][row][None]
        other = reference(xt[None], attention_mask=visible).logits[0]
        excess = F.cross_entropy(logits, x0, reduction="none") - F.cross_entropy(
            other, x0, reduction="none"
        )
        count = max(1, round(0.6 * int(masked.sum())))
        best = sorted(masked.nonzero()[:, 0].tolist(), key=lambda i: -float(excess[i].detach()))[
            :count
        ]
        return torch.tensor([float(i in best) for i in range(len(x0))])

    found = made.compute_loss(made.model, batch)
    assert_close(found, by_hand(made, batch, weigh), atol=1e-5, rtol=1e-4)


def test_weights_that_are_not_finite_are_told_with_step_and_records(tmp_path):
    for rates in ("uniform", "sqrt_entropy"):
        broken = small_model()
        with torch.no_grad():
            broken.get_output_embeddings().weight[0, 0] = torch.nan
        made = trainer(tmp_path, rates, model=broken)
        with pytest.raises(UserError, match=r"sft, step 1: .* not finite \(records \d, \d, \d, \d"):
            made.train()


def test_a_cached_run_estimates_once_in_the_epochs_it_keeps_and_resumes_to_the_bit(tmp_path):
    """8 examples in batches of 4 are 2 steps an epoch; of the 3 epochs the third refreshes."""
    whole = trainer(tmp_path / "whole", "sqrt_entropy", refresh_every=2)
    calls = []
    whole.model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    whole.train()
    assert calls.count(True) == 6
    assert calls.count(False) == 4  # both batches of epochs 0 and 2
    first = trainer(tmp_path / "cut", "sqrt_entropy", refresh_every=2)
    first.add_callback(stop_after(3))
    first.train()
    kept = newest_checkpoint(tmp_path / "cut", "sft")
    second = trainer(tmp_path / "cut", "sqrt_entropy", refresh_every=2)
    second.train(resume_from_checkpoint=str(kept))
    assert logs(second) == logs(whole)
    assert second.token_table.rows() == whole.token_table.rows()
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("times", ["stratified", "antithetic"])
def test_times_of_a_batch(tmp_path, times):
    made = trainer(tmp_path, times=times)
    keys = torch.tensor([[0, i] for i in range(4)])

    def drawn(keys):
        generators = [torch.Generator().manual_seed(i) for i in range(len(keys))]
        return made._times(generators, keys)[:, 0].sort().values

    found = drawn(keys)
    assert torch.equal(found, drawn(keys))
    assert not torch.equal(found, drawn(keys + 1))
    if times == "stratified":  # one in each quarter
        assert (found * 4).floor().tolist() == [0, 1, 2, 3]
    else:
        assert_close(found + found.flip(0), torch.ones(4))


def test_presets_fix_what_their_names_promise():
    assert recipe_of("weft_paper", "none", True) == Recipe("sqrt_entropy", "none", "masked")
    exact = Recipe("sqrt_entropy", "none", "answer", slope=True)
    assert recipe_of("weft_exact", "masked", False) == exact
    assert recipe_of("weft", "masked", True) == Recipe("sqrt_entropy", "none", "masked", True)
    assert {*RECIPES} == {*COLD_STARTS}


def test_the_gradient_norms_of_all_steps_are_summed_up(tmp_path):
    each, window = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    window.args.logging_steps = 3
    each.train()
    window.train()
    norms = [row["grad_norm"] for row in each.state.log_history if "loss" in row]
    found = [row for row in window.state.log_history if "loss" in row]
    for row, part in zip(found, (norms[:3], norms[3:]), strict=True):
        low, middle, high = sorted(part)
        assert row["grad_norm_max"] == pytest.approx(high, rel=1e-4)
        assert row["grad_norm_median"] == pytest.approx(middle, rel=1e-4)
        assert row["grad_norm_mean"] == pytest.approx((low + middle + high) / 3, rel=1e-4)
