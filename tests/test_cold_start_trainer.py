"""The cold start's trainer against its formulas by hand, and against itself."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from small_cold_start import (
    SEED,
    arguments,
    examples,
    logs,
    recipe,
    small_model,
    stop_after,
    trainer,
)
from torch.nn import functional as F
from torch.testing import assert_close

from weft_rl.diffusion.noise import TIME_MARGIN
from weft_rl.errors import UserError
from weft_rl.models.loading import fresh_model
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.seeding import seed_for
from weft_rl.trainers.cold_start import ColdStartTrainer
from weft_rl.trainers.collator import AnswerCollator
from weft_rl.trainers.weft_loss import masking_rates

WEFT = "sqrt_entropy"


def by_hand(made, batch, weigh):
    """The uniformly masked loss, row by row: mean over rows of the sum over masked tokens of
    weight * -log p / t, over the answer's length. weigh(logits, x0, masked, xt, row): weights."""
    total = []
    for row in range(len(batch["input_ids"])):
        x0, answer = batch["input_ids"][row], batch["labels"][row] != -100
        ids = batch["example_ids"][row].tolist()
        generator = torch.Generator().manual_seed(seed_for(SEED, "mask", *ids))
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


@pytest.mark.parametrize(
    "kind", ["none", "padding", "sqrt_entropy", "dream", "own_probability", "excess_loss"]
)
def test_losses_of_uniform_masks_by_hand(tmp_path, kind):
    """LLaDA's loss, where padding may be answer; the weights of WeFT (SW), Dream, DFT and Rho-1."""
    reference, weights = fresh_model(small_model().config, 5), kind.replace("padding", "none")
    made = trainer(tmp_path, "uniform", weights, reference=reference)
    if kind == "padding":
        made.data_collator = AnswerCollator(1, pad_in_answer=True)
    batch = made.data_collator(examples()[:3])

    def weigh(logits, x0, masked, xt, row):
        visible, answer = batch["attention_mask"][row], batch["labels"][row] != -100
        places, nll = range(len(x0)), F.cross_entropy(logits, x0, reduction="none")
        match kind:
            case "sqrt_entropy":
                hidden = x0.masked_fill(answer, made.model.config.mask_token_id)
                p = made.model(hidden[None], attention_mask=visible[None]).logits[0].softmax(-1)
                return (-(p * p.log()).sum(-1)).sqrt().detach()
            case "dream":
                known = [j for j in range(int(visible.sum())) if not masked[j]]
                near = [[0.3 * 0.7 ** (abs(i - j) - 1) for j in known if j != i] for i in places]
                return torch.tensor([sum(each) / 2 for each in near])
            case "own_probability":
                return logits.softmax(-1).gather(-1, x0[:, None])[:, 0].detach()
            case "excess_loss":
                other = reference(xt[None], attention_mask=visible[None]).logits[0]
                excess = nll - F.cross_entropy(other, x0, reduction="none")
                order = sorted(masked.nonzero()[:, 0].tolist(), key=lambda i: -float(excess[i]))
                best = order[: max(1, round(0.6 * len(order)))]
                return torch.tensor([float(i in best) for i in places])
        return torch.ones(len(x0))

    found, wanted = made.compute_loss(made.model, batch), by_hand(made, batch, weigh)
    assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    weight = made.model.get_output_embeddings().weight  # no gradient through the weights
    one, other = (torch.autograd.grad(loss, weight)[0] for loss in (found, wanted))
    assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_mean_of_the_exact_loss_is_the_negative_elbo(tmp_path):
    """The trainer's own draws of t and masks, against the orders of masking enumerated."""
    model = small_model()
    with torch.no_grad():  # large weights: a prediction depends on what else is masked
        for weight in model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
        model.get_output_embeddings().weight.mul_(5)
    made = trainer(tmp_path, WEFT, "none", True, "none", model=model)
    full = examples()[0]
    row = made.data_collator([replace(full, ids=full.ids[: full.prompt_length + 4])])
    mask_id, answer = model.config.mask_token_id, row["labels"] != -100
    places, ids = answer[0].nonzero()[:, 0].tolist(), row["input_ids"][0]
    with torch.no_grad():
        beta = masking_rates(made.recipe, made.entropies(model, row), answer)[0].double()
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
            losses.append(made.compute_loss(model, batch | {"example_ids": keys}).item())
    found = torch.tensor(losses, dtype=torch.float64)
    error = float(found.std() / len(found) ** 0.5)
    assert beta[places].max() / beta[places].min() > 1.5
    assert error < 0.02 * wanted
    # the margin that keeps t from 0 and 1 leaves out two thousandths of its range
    assert abs(float(found.mean()) - wanted) < 3 * error + 0.005 * wanted


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "accumulate"), [(1, 5), (2, 3), (4, 2)])
def test_a_step_is_the_mean_over_its_records_however_it_is_cut(tmp_path, batch, accumulate):
    """A step an epoch of five records, in one batch or in several of different sizes."""
    runs = []
    # plain gradient descent: Adam turns rounding noise of tiny gradients into steps
    for folder, size, parts in (("a", 5, 1), ("b", batch, accumulate)):
        made = trainer(tmp_path / folder, WEFT, batch=size, accumulate=parts, optim="sgd")
        made.train_dataset = examples()[:5]
        made.train()
        runs.append(made)
    rows = [torch.tensor(logs(made)) for made in runs]
    assert_close(rows[1], rows[0], atol=1e-4, rtol=1e-4)  # the Trainer rounds what it logs
    one, other = ([*made.model.parameters()] for made in runs)
    assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("scale", [0, 20])
def test_equal_rates_are_sft_and_unequal_ones_are_not(tmp_path, exact, scale):
    model = small_model()
    with torch.no_grad():  # 0: equally unsure of all tokens; 20: sure of some
        model.get_output_embeddings().weight.mul_(scale)
    batch = trainer(tmp_path, model=model).data_collator(examples()[:4])
    sft = trainer(tmp_path, model=model).compute_loss(model, batch)
    weft = trainer(tmp_path, WEFT, "none", exact, model=model).compute_loss(model, batch)
    assert (abs(float(sft.detach() - weft.detach())) < 1e-3) == (scale == 0)


def test_the_entropy_pass_sees_no_answer(tmp_path):
    made = trainer(tmp_path, WEFT)
    batch = made.data_collator(examples()[:4])
    other = {"input_ids": batch["input_ids"].masked_fill(batch["labels"] != -100, 20)}
    assert torch.equal(made.entropies(made.model, batch), made.entropies(made.model, batch | other))


@pytest.mark.slow
@pytest.mark.parametrize("refresh", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path, refresh):
    """8 examples in batches of 4 are 2 steps an epoch: step 3 is in the middle of the second."""
    full = trainer(tmp_path / "full", WEFT, entropy_refresh_epochs=refresh)
    passes = []
    full.model.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    full.train()
    # with a cache both batches of epochs 0 and 2
    assert [passes.count(grad) for grad in (True, False)] == [6, 6 if refresh == 1 else 4]
    first = trainer(tmp_path / "cut", WEFT, entropy_refresh_epochs=refresh)
    first.add_callback(stop_after(3))
    first.train()
    checkpoint = newest_checkpoint(tmp_path / "cut", "sft")
    assert checkpoint.name == "step-3"
    second = trainer(tmp_path / "cut", WEFT, entropy_refresh_epochs=refresh)
    second.train(resume_from_checkpoint=str(checkpoint))
    assert logs(second) == logs(full)
    assert second.token_table.rows() == full.token_table.rows()
    one, other = ([*made.model.parameters()] for made in (full, second))
    assert all(map(torch.equal, one, other))


def test_resumed_after_the_last_step_it_trains_no_other(tmp_path):
    cut = {"batch": 3, "max_steps": 5, "save_steps": 5}  # three steps an epoch
    full = trainer(tmp_path, WEFT, **cut)
    full.train()
    again = trainer(tmp_path, WEFT, **cut)
    again.train(resume_from_checkpoint=str(newest_checkpoint(tmp_path, "sft")))
    assert again.state.global_step == 5
    one, other = ([*made.model.parameters()] for made in (full, again))
    assert all(map(torch.equal, one, other))
    assert again.token_table.rows() == full.token_table.rows()


@pytest.mark.parametrize("rates", ["uniform", WEFT])
def test_weights_that_are_not_finite_are_named_with_step_and_records(tmp_path, rates):
    broken = small_model()
    with torch.no_grad():
        broken.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"sft, step 1: .* not finite \(.*\d, \d, \d, \d\)"):
        trainer(tmp_path, rates, model=broken).train()


@pytest.mark.parametrize("times", ["stratified", "antithetic"])
def test_times_of_a_batch(tmp_path, times):
    made = trainer(tmp_path, t_sampling=times)
    ids = torch.tensor([[0, i] for i in range(4)])

    def drawn(ids):
        generators = [torch.Generator().manual_seed(i) for i in range(len(ids))]
        return made.times(generators, ids)[:, 0].sort().values

    found = drawn(ids)
    assert torch.equal(found, drawn(ids))
    assert not torch.equal(found, drawn(ids + 1))
    if times == "stratified":  # one in each quarter
        assert (found * 4).floor().tolist() == [0, 1, 2, 3]
    else:
        assert_close(found + found.flip(0), torch.ones(4))


@pytest.mark.slow
def test_the_public_trainer_works_in_a_users_script_and_removes_nothing(tmp_path):
    """No run directory, transformers' own checkpoints, and a file of the user's in output_dir."""
    args = arguments(tmp_path, per_device_train_batch_size=4)
    mine = tmp_path / "scratch" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    made = ColdStartTrainer(small_model(), args, train_dataset=examples())
    made.train()
    names = {path.name for path in mine.parent.iterdir()}
    assert {"mine.txt", "checkpoint-3", "checkpoint-6"} <= names
    pipeline = trainer(tmp_path / "run", WEFT)
    pipeline.train()
    one, other = ([*each.model.parameters()] for each in (made, pipeline))
    assert all(map(torch.equal, one, other))
    assert recipe(WEFT).needs_entropy
