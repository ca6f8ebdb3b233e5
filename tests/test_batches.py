"""Batches: padding, whose masks are whose, and the order by length."""

import pytest
import torch
from small_cold_start import recipe, small_model, stop_after
from small_cold_start import trainer as cold_start
from torch.nn import functional as F
from torch.testing import assert_close

from weft_rl.data.sft_examples import Example
from weft_rl.diffusion.logprob_estimators import MaskedViews
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.trainers.collator import AnswerCollator
from weft_rl.trainers.infra.resumable_trainers import LengthGroupedOrder
from weft_rl.trainers.masked_log_probs import RolloutBatch, view_log_probs

PAD = 1
MASK = tiny_tokenizer().mask_token_id


def examples(count=8):
    """Records of 3 prompt tokens and 4, 7, 10, ... answer tokens."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randint(10, 40, (7 + 3 * i,), generator=generator) for i in range(count)]
    return [Example(i, ids.tolist(), 3) for i, ids in enumerate(draws)]


def trainer(folder, pad_in_answer=False, rates="uniform", **options):
    collator = AnswerCollator(PAD, pad_in_answer)
    return cold_start(
        folder, data_collator=collator, train_dataset=examples(), recipe=recipe(rates), **options
    )


def test_a_batch_by_hand():
    pair = [Example(4, [10, 11, 12], 1), Example(9, [20, 21, 22, 23, 24], 3)]
    apart = AnswerCollator(PAD)(pair)
    inside = AnswerCollator(PAD, pad_in_answer=True)(pair)
    for batch in (apart, inside):
        assert batch["input_ids"].tolist() == [[10, 11, 12, PAD, PAD], [20, 21, 22, 23, 24]]
        assert batch["example_ids"].tolist() == [[0, 4], [0, 9]]
    last = [-100, -100, -100, 23, 24]
    assert apart["labels"].tolist() == [[-100, 11, 12, -100, -100], last]
    assert apart["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    # the padding belongs to the answer and is visible
    assert inside["labels"].tolist() == [[-100, 11, 12, PAD, PAD], last]
    assert inside["attention_mask"].tolist() == [[1] * 5, [1] * 5]


def masked_of(made, chosen, epoch=0):
    """Which of its own tokens each record has masked in a step on `chosen`, by its index."""
    inputs = []
    hook = made.model.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append(kwargs["input_ids"]), with_kwargs=True
    )
    made.data_collator.epoch = epoch
    made.compute_loss(made.model, made.data_collator(chosen))
    hook.remove()
    # the last forward pass is the one that is trained on
    rows = zip(chosen, inputs[-1], strict=True)
    return {one.index: (row[: len(one.ids)] == MASK).tolist() for one, row in rows}


@pytest.mark.parametrize(
    ("pad_in_answer", "rates"), [(False, "uniform"), (True, "uniform"), (False, "sqrt_entropy")]
)
def test_a_records_masks_depend_on_seed_epoch_and_record_alone(tmp_path, pad_in_answer, rates):
    some, made = examples(), trainer(tmp_path, pad_in_answer, rates)
    wanted = masked_of(made, some)
    assert sum(map(sum, wanted.values())) > 20
    if rates == "uniform":  # the padding's draws come after the answer's
        assert masked_of(trainer(tmp_path), some) == wanted
    assert masked_of(made, some[::-1]) == wanted
    assert all(masked_of(made, [one]) == {one.index: wanted[one.index]} for one in some)
    assert masked_of(made, some, epoch=1) != wanted


LENGTHS = torch.randint(5, 200, (103,), generator=torch.Generator().manual_seed(3)).tolist()


def order(lengths=LENGTHS, seed=0, epoch=0):
    made = LengthGroupedOrder(lengths, 4, seed)
    made.epoch = epoch
    return [*made]


def test_the_order_by_length_pads_less_and_depends_on_seed_and_epoch_alone():
    def padding(places):
        batches = [[LENGTHS[k] for k in places[i : i + 4]] for i in range(0, len(places), 4)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches) / sum(LENGTHS)

    shuffled = torch.randperm(103, generator=torch.Generator().manual_seed(0)).tolist()
    assert padding(shuffled) > 0.4
    wanted, state = order(), torch.manual_seed(5).get_state()
    assert padding(wanted) < 0.2
    assert sorted(wanted) == [*range(103)]
    assert order() == wanted
    assert torch.equal(torch.get_rng_state(), state)
    assert wanted not in (order(seed=1), order(epoch=1))


def batches_of(made, **options):
    """(epoch, record) of each forward pass, in order."""
    ids, compute = [], made.compute_loss

    def noting(model, inputs, *args, **kwargs):
        ids.append([tuple(row) for row in inputs["example_ids"].tolist()])
        return compute(model, inputs, *args, **kwargs)

    made.compute_loss = noting
    made.train(**options)
    return ids


def by_length():
    return LengthGroupedOrder([len(one.ids) for one in examples()], 4, 7)


@pytest.mark.slow
def test_a_run_by_length_resumes_to_the_bit_and_accumulates(tmp_path):
    """8 records in batches of 4 are 2 steps an epoch: step 3 is in the middle of the second."""
    full = trainer(tmp_path / "full", order=by_length())
    lengths, wanted = [len(one.ids) for one in examples()], []
    for epoch in range(3):
        ids = [(epoch, place) for place in order(lengths, 7, epoch)]
        wanted += [ids[:4], ids[4:]]
    assert batches_of(full) == wanted
    assert wanted[0] != [(0, place) for _, place in wanted[2]]
    first = trainer(tmp_path / "cut", order=by_length())
    first.add_callback(stop_after(3))
    first.train()
    torch.manual_seed(99)
    second = trainer(tmp_path / "cut", order=by_length())
    checkpoint = newest_checkpoint(tmp_path / "cut", "sft")
    assert batches_of(second, resume_from_checkpoint=str(checkpoint)) == wanted[3:]
    one, other = ([*made.model.parameters()] for made in (full, second))
    assert all(map(torch.equal, one, other))
    parts = batches_of(trainer(tmp_path / "b", order=by_length(), batch=2, accumulate=2))
    assert wanted == [one + other for one, other in zip(parts[::2], parts[1::2], strict=True)]


def test_a_prompts_masks_do_not_depend_on_its_padding():
    """RL masks some of a prompt's tokens by its seed; padding to a longer prompt draws nothing."""
    model = small_model()
    prompt, completion = torch.tensor([[5, 6, 7, 8, 9, 10]]), torch.tensor([[6, 7, 8]])
    every = torch.ones_like(completion).bool()
    views = MaskedViews(every[:, None], every[:, None].float())
    found = []
    for padding in (0, 1, 5):
        ids = F.pad(prompt, (padding, 0), value=model.config.pad_token_id)
        visible = F.pad(torch.ones_like(prompt), (padding, 0))
        rows = RolloutBatch(ids, visible, completion, every, completion, None)
        options = {"prompt_probability": 0.5, "mask_id": model.config.mask_token_id}
        seeds = torch.arange(8)[:, None]
        each = [view_log_probs(model, rows, views, seed, **options)[0] for seed in seeds]
        found.append(torch.stack(each).detach())
    # the seeds mask different tokens
    assert len(found[0].unique(dim=0)) > 4
    for padded in found[1:]:
        assert_close(padded, found[0], atol=1e-6, rtol=1e-5)
