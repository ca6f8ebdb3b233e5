"""Batches: padding, whose masks are whose, and the order by length."""

import pytest
import torch
from small_cold_start import arguments, small_model
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import TrainerCallback

from weft_rl.data.sft_examples import Example
from weft_rl.diffusion.logprob_estimators import MaskedViews
from weft_rl.diffusion.noise import TIME_MARGIN
from weft_rl.diffusion.rates import mean_rate
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.seeding import seed_for
from weft_rl.trainers.cold_start import ColdStartTrainer
from weft_rl.trainers.collator import AnswerCollator
from weft_rl.trainers.infra.length_sampler import LengthGroupedOrder
from weft_rl.trainers.masked_log_probs import RolloutBatch, view_log_probs
from weft_rl.diffusion.recipes import Recipe

PAD = 1
MASK = tiny_tokenizer().mask_token_id


def examples(count=8):
    """Records of 3 prompt tokens and 4, 7, 10, ... answer tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = [7 + 3 * i for i in range(count)]
    draws = [torch.randint(10, 40, (n,), generator=generator).tolist() for n in lengths]
    return [Example(i, ids, 3) for i, ids in enumerate(draws)]


def trainer(folder, pad_in_answer=False, rates="uniform", order=None, batch=4, accumulate=1):
    made = ColdStartTrainer(
        model=small_model(),
        args=arguments(
            folder, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate
        ),
        train_dataset=examples(),
        data_collator=AnswerCollator(PAD, pad_in_answer),
        processing_class=tiny_tokenizer(),
        objective=Recipe(rates),
        seed=7,
        order=order,
    )
    made.run, made.stage = folder, "sft"
    return made


def test_a_batch_by_hand():
    pair = [Example(4, [10, 11, 12], 1), Example(9, [20, 21, 22, 23, 24], 3)]
    apart = AnswerCollator(PAD)(pair)
    inside = AnswerCollator(PAD, pad_in_answer=True)(pair)
    for batch in (apart, inside):
        assert batch["input_ids"].tolist() == [[10, 11, 12, PAD, PAD], [20, 21, 22, 23, 24]]
        assert batch["example_ids"].tolist() == [[0, 4], [0, 9]]
    assert apart["answer"].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert apart["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    # the padding is answer as well, and seen
    assert inside["answer"].int().tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert inside["attention_mask"].tolist() == [[1] * 5, [1] * 5]


def masked_of(made, chosen, epoch=0):
    """Which of its own tokens each record has masked in a step on `chosen`, by its place."""
    seen = []
    hook = made.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    made.data_collator.epoch = epoch
    made.compute_loss(made.model, made.data_collator(chosen))
    hook.remove()
    # the last forward is the one that is trained on
    rows = zip(chosen, seen[-1], strict=True)
    return {one.index: (row[: len(one.ids)] == MASK).tolist() for one, row in rows}


def test_a_records_masks_depend_on_seed_epoch_and_record_alone(tmp_path):
    some = examples()
    apart, inside = trainer(tmp_path), trainer(tmp_path, pad_in_answer=True)
    wanted = masked_of(apart, some)
    assert sum(map(sum, wanted.values())) > 20
    assert masked_of(inside, some) == wanted  # the padding's draws come after the answer's
    for made in (apart, inside):
        assert masked_of(made, some[::-1]) == wanted
        for one in some:
            assert masked_of(made, [one]) == {one.index: wanted[one.index]}
        assert masked_of(made, some, epoch=1) != wanted
    weft = trainer(tmp_path, rates="sqrt_entropy")
    wanted = masked_of(weft, some)
    assert masked_of(weft, some[::-1]) == wanted
    assert all(masked_of(weft, [one]) == {one.index: wanted[one.index]} for one in some)


def test_padding_in_the_answer_is_lladas_loss(tmp_path):
    """Sum over masked tokens, padding among them, of -log p / t, over the padded answer's length;
    nothing is hidden from the model."""
    made, chosen = trainer(tmp_path, pad_in_answer=True), examples(3)
    length = max(len(one.ids) for one in chosen)
    wanted = []
    for one in chosen:
        ids = torch.tensor(one.ids + [PAD] * (length - len(one.ids)))
        generator = torch.Generator().manual_seed(seed_for(7, "mask", 0, one.index))
        t = TIME_MARGIN + (1 - 2 * TIME_MARGIN) * torch.rand(1, generator=generator)
        masked = torch.zeros(length, dtype=torch.bool)
        masked[3:] = torch.rand(length - 3, generator=generator) < t
        nll = F.cross_entropy(
            made.model(ids.masked_fill(masked, MASK)[None]).logits[0], ids, reduction="none"
        )
        wanted.append(nll[masked].sum() / t / (length - 3))
    found = made.compute_loss(made.model, made.data_collator(chosen))
    assert_close(found, torch.cat(wanted).mean(), atol=1e-5, rtol=1e-5)


def test_padding_is_out_of_the_mean_rate_unless_it_is_answer(tmp_path):
    def mean(made, chosen):
        batch = made.data_collator(chosen)
        rates = made.rates(made.estimated(made.model, batch), batch["answer"])
        return float(mean_rate(rates, batch["answer"])[0])

    some = examples()
    apart = trainer(tmp_path, rates="sqrt_entropy")
    inside = trainer(tmp_path, pad_in_answer=True, rates="sqrt_entropy")
    alone = mean(apart, some[:1])
    assert mean(apart, some) == pytest.approx(alone, rel=1e-5)
    assert mean(inside, some[:1]) == pytest.approx(alone, rel=1e-5)
    assert mean(inside, some) != pytest.approx(alone, rel=1e-5)


LENGTHS = torch.randint(5, 200, (103,), generator=torch.Generator().manual_seed(3)).tolist()


def order(seed=0, epoch=0, batch=4):
    made = LengthGroupedOrder(LENGTHS, batch, seed)
    made.epoch = epoch
    return [*made]


def test_the_order_by_length_depends_on_seed_and_epoch_alone():
    wanted = order()
    assert sorted(wanted) == [*range(103)]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert order() == wanted
    assert torch.equal(torch.get_rng_state(), state)
    assert order(seed=1) != wanted
    assert order(epoch=1) != wanted
    made = LengthGroupedOrder(LENGTHS, 4, 0)
    assert [*made] == [*made] == wanted


def test_the_order_by_length_pads_less():
    def padding(places):
        batches = [places[i : i + 4] for i in range(0, len(places), 4)]
        return sum(
            max(LENGTHS[i] for i in batch) - LENGTHS[k] for batch in batches for k in batch
        ) / sum(LENGTHS)

    shuffled = torch.randperm(103, generator=torch.Generator().manual_seed(0)).tolist()
    assert padding(shuffled) > 0.4
    assert padding(order()) < 0.2


def stop_after(step):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == step

    return Stop()


def seen_by(made, **options):
    """The records of each forward pass, in order, with the epoch."""
    seen, compute = [], made.compute_loss

    def noting(model, inputs, *args, **kwargs):
        seen.append([tuple(key) for key in inputs["example_ids"].tolist()])
        return compute(model, inputs, *args, **kwargs)

    made.compute_loss = noting
    made.train(**options)
    return seen


def by_length():
    return LengthGroupedOrder([len(one.ids) for one in examples()], 4, 7)


def test_a_run_by_length_resumes_to_the_bit(tmp_path):
    """8 records in batches of 4 are 2 steps an epoch: step 3 lies in the middle of the second."""
    whole = trainer(tmp_path / "whole", order=by_length())
    seen = seen_by(whole)
    wanted = []
    for epoch in range(3):
        places = by_length()
        places.epoch = epoch
        keys = [(epoch, place) for place in places]
        wanted += [keys[:4], keys[4:]]
    assert seen == wanted
    assert wanted[0] != [(0, place) for _, place in wanted[2]]
    first = trainer(tmp_path / "cut", order=by_length())
    first.add_callback(stop_after(3))
    first.train()
    torch.manual_seed(99)
    second = trainer(tmp_path / "cut", order=by_length())
    kept = newest_checkpoint(tmp_path / "cut", "sft")
    assert seen_by(second, resume_from_checkpoint=str(kept)) == wanted[3:]
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_by_length_holds_the_same_records_however_it_is_accumulated(tmp_path):
    whole = seen_by(trainer(tmp_path / "a", order=by_length()))
    parts = seen_by(trainer(tmp_path / "b", order=by_length(), batch=2, accumulate=2))
    assert whole == [one + other for one, other in zip(parts[::2], parts[1::2], strict=True)]


def test_a_prompts_masks_do_not_hang_on_its_padding():
    """RL hides some of a prompt's tokens by its seed; padding to a longer prompt draws nothing."""
    model = small_model()
    prompt, completion = torch.tensor([[5, 6, 7, 8, 9, 10]]), torch.tensor([[6, 7, 8]])
    every = torch.ones_like(completion).bool()
    views = MaskedViews(every[:, None], every[:, None].float())
    found = []
    for padding in (0, 1, 5):
        ids = torch.nn.functional.pad(prompt, (padding, 0), value=model.config.pad_token_id)
        shown = torch.nn.functional.pad(torch.ones_like(prompt), (padding, 0))
        rows = RolloutBatch(ids, shown, completion, every, completion, None)
        options = {"prompt_probability": 0.5, "mask_id": model.config.mask_token_id}
        each = [
            view_log_probs(model, rows, views, torch.tensor([seed]), **options)[0]
            for seed in range(8)
        ]
        found.append(torch.stack(each).detach())
    # the seeds hide different tokens
    assert len(found[0].unique(dim=0)) > 4
    for padded in found[1:]:
        assert_close(padded, found[0], atol=1e-6, rtol=1e-5)
