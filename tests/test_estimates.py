"""The estimate pass against a whole forward, and the estimates that are kept."""

import pytest
import torch
from torch.testing import assert_close

from weft_rl.diffusion.rates import token_entropy, token_nll
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.trainers.entropy_pass import EntropyCache, answer_positions, estimate
from weft_rl.trainers.infra.token_entropy_log import TokenTable

MASK = 19


def model():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"mask_token_id": MASK, "eos_token_id": 18, "eot_token_id": 17, "pad_token_id": 18}
    config = LLaDAConfig(
        vocab_size=20, intermediate_size=16, initializer_range=0.5, bos_token_id=16, **sizes, **ids
    )
    return fresh_model(config, 0)


def batch():
    """Answers of 4, 2 and 3 tokens, the last one with a hole; one row is padded."""
    answer = torch.tensor(
        [[0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]], dtype=torch.bool
    )
    x0 = torch.randint(0, 16, (3, 6), generator=torch.Generator().manual_seed(1))
    attention_mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6])
    return {"x0": x0, "attention_mask": attention_mask, "answer": answer}


def test_positions_by_hand():
    found = answer_positions(batch()["answer"])
    assert found.shape == (3, 4)
    assert found[0].tolist() == [1, 2, 3, 4]
    assert found[1, :2].tolist() == [2, 3]
    assert found[2, :3].tolist() == [1, 3, 4]


@pytest.mark.parametrize("kind", ["entropy", "nll"])
def test_the_head_on_answer_rows_is_the_whole_forward(kind):
    made, rows = model(), batch()
    xt = rows["input_ids"].masked_fill(rows["answer"], MASK)
    with torch.no_grad():
        logits = made(xt, attention_mask=rows["attention_mask"]).logits
    p = logits.softmax(-1)
    wanted = -(p * p.log()).sum(-1)
    if kind == "nll":
        wanted = -p.gather(-1, rows["input_ids"][..., None])[..., 0].log()

    def reduce(logits, x0, _):
        return token_nll(logits, x0) if kind == "nll" else token_entropy(logits)

    found = estimate(made, rows, MASK, reduce)
    assert_close(found, wanted * rows["answer"], atol=1e-5, rtol=1e-5)


def test_bfloat16_is_close_and_float32():
    made, rows = model(), batch()

    def reduce(logits, *_):
        return token_entropy(logits)

    found, wanted = (estimate(made, rows, MASK, reduce, bf16=bf16) for bf16 in (True, False))
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    assert_close(found, wanted, atol=0.05, rtol=0)


def test_the_mode_is_as_chosen_and_left_as_it_was():
    made, rows, seen = model(), batch(), []

    def reduce(logits, *_):
        seen.append(made.training)
        return token_entropy(logits)

    for training in (True, False):
        made.train(training)
        for train_mode in (True, False):
            estimate(made, rows, MASK, reduce, train_mode=train_mode)
            assert seen == [train_mode]
            assert made.training == training
            seen.clear()


def asked(cache, epoch, examples):
    """Values of a batch of one-token answers, new ones being 10 * epoch + example."""
    calls = []

    def fresh():
        calls.append(epoch)
        return torch.tensor([[0.0, 10.0 * epoch + i] for i in examples])

    keys = torch.tensor([[epoch, i] for i in examples])
    answer = torch.tensor([[False, True]] * len(examples))
    return cache.get(keys, answer, fresh)[:, 1].tolist(), len(calls)


def test_kept_for_two_epochs_in_any_batch():
    cache = EntropyCache(2)
    assert asked(cache, 0, [0, 1]) == ([0, 1], 1)
    assert asked(cache, 0, [2]) == ([2], 1)
    assert asked(cache, 1, [2, 0]) == ([2, 0], 0)
    assert asked(cache, 2, [2, 0]) == ([22, 20], 1)
    # one of them is due: all are estimated
    assert asked(cache, 3, [0, 1]) == ([30, 31], 1)
    assert asked(cache, 3, [1]) == ([31], 0)  # kept, though estimated in the period's middle


def test_one_epoch_keeps_nothing():
    cache = EntropyCache(1)
    assert [asked(cache, epoch, [0])[1] for epoch in (0, 0, 1)] == [1, 1, 1]
    assert cache.kept == {}


def test_saved_and_taken_up(tmp_path):
    first, second = EntropyCache(3), EntropyCache(3)
    asked(first, 0, [0, 1])
    first.save(tmp_path)
    second.load(tmp_path)
    assert asked(second, 2, [1, 0]) == ([1, 0], 0)
    assert asked(second, 3, [0])[1] == 1  # due
    EntropyCache(3).load(tmp_path / "none")  # a checkpoint of fresh estimates has no file


def test_token_table_by_hand(tmp_path):
    table = TokenTable(5)
    x0 = torch.tensor([[3, 1, 1], [1, 3, 0]])
    answer = torch.tensor([[False, True, True], [True, True, False]])
    table.add(x0, answer, torch.tensor([[9.0, 1.0, 2.0], [3.0, 0.5, 9.0]]))
    assert table.rows() == [(1, 3, 2.0), (3, 1, 0.5)]  # (1 + 2 + 3) / 3
    table.write(tmp_path / "t.csv", lambda token: f'<{token}>,"')
    wanted = 'id,token,count,mean_entropy\n1,"<1>,""",3,2.000000\n3,"<3>,""",1,0.500000\n'
    assert (tmp_path / "t.csv").read_text() == wanted
    table.save(tmp_path, 0)
    again = TokenTable(5)
    again.load(tmp_path, 0)
    again.load(tmp_path, 1)  # a rank that was not there
    assert again.rows() == table.rows()
