"""The entropy pass against a full forward pass, the cache, and the table of tokens."""

import pytest
import torch
from torch.testing import assert_close

from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.runs.folder import read_json
from weft_rl.trainers.entropy_pass import EntropyCache, answer_positions, entropy_pass
from weft_rl.trainers.infra.token_entropy_log import TokenTable, write_heatmap

MASK = 19
# answers of 4, 2 and 3 tokens, the last one with a hole; one row is padded
ANSWER = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]]).bool()
VISIBLE = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6])
X0 = torch.randint(0, 16, (3, 6), generator=torch.Generator().manual_seed(1))


def model():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": 20, "intermediate_size": 16, "initializer_range": 0.5}
    ids = {"mask_token_id": MASK, "eos_token_id": 18, "eot_token_id": 17, "pad_token_id": 18}
    return fresh_model(LLaDAConfig(bos_token_id=16, **sizes, **ids), 0)


def test_positions_by_hand():
    found = answer_positions(ANSWER)
    assert found.shape == (3, 4)
    rows = [row[:count].tolist() for row, count in zip(found, (4, 2, 3), strict=True)]
    assert rows == [[1, 2, 3, 4], [2, 3], [1, 3, 4]]


@pytest.mark.parametrize("statistic", ["entropy", "nll"])
def test_the_head_on_answer_rows_is_the_full_forward(statistic):
    made = model()
    with torch.no_grad():
        logits = made(X0.masked_fill(ANSWER, MASK), attention_mask=VISIBLE).logits
    p = logits.softmax(-1)
    wanted = -(p * p.log()).sum(-1)
    if statistic == "nll":
        wanted = -p.gather(-1, X0[..., None])[..., 0].log()
    found = entropy_pass(made, X0, VISIBLE, ANSWER, MASK, statistic)
    assert_close(found, wanted * ANSWER, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_close_and_float32():
    found, wanted = (
        entropy_pass(model(), X0, VISIBLE, ANSWER, MASK, bf16=bf16) for bf16 in (True, False)
    )
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    assert_close(found, wanted, atol=0.05, rtol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("train_mode", [True, False])
def test_the_mode_is_as_chosen_and_restored(training, train_mode):
    made, modes = model().train(training), []
    made.register_forward_hook(lambda *_: modes.append(made.training))
    entropy_pass(made, X0, VISIBLE, ANSWER, MASK, train_mode=train_mode)
    assert modes == [train_mode]
    assert made.training == training


def ask(cache, epoch, examples):
    """Values of a batch of one-token answers, new ones being 10 * epoch + example; the passes."""
    calls = []

    def compute():
        calls.append(epoch)
        return torch.tensor([[0.0, 10.0 * epoch + i] for i in examples])

    ids = torch.tensor([[epoch, i] for i in examples])
    answer = torch.tensor([[False, True]] * len(examples))
    return cache.get(ids, answer, compute)[:, 1].tolist(), len(calls)


def test_kept_for_two_epochs_in_any_batch():
    cache = EntropyCache(2)
    assert ask(cache, 0, [0, 1]) == ([0, 1], 1)
    assert ask(cache, 0, [2]) == ([2], 1)
    assert ask(cache, 1, [2, 0]) == ([2, 0], 0)
    assert ask(cache, 2, [2, 0]) == ([22, 20], 1)
    # one of them is due: all are computed
    assert ask(cache, 3, [0, 1]) == ([30, 31], 1)
    assert ask(cache, 3, [1]) == ([31], 0)  # kept, though computed in the period's middle
    cache = EntropyCache(1)
    assert [ask(cache, epoch, [0])[1] for epoch in (0, 0, 1)] == [1, 1, 1]


def test_saved_and_restored(tmp_path):
    first, second = EntropyCache(3), EntropyCache(3)
    ask(first, 0, [0, 1])
    first.save(tmp_path)
    second.load(tmp_path)
    assert ask(second, 2, [1, 0]) == ([1, 0], 0)
    assert ask(second, 3, [0])[1] == 1  # due
    EntropyCache(3).load(tmp_path / "none")  # a checkpoint without a cache has no file


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
    again.load(tmp_path, 1)  # a process that was not there
    assert again.rows() == table.rows()


def test_heatmap_by_hand(tmp_path):
    x0, answer = torch.tensor([[9, 1, 2, 3]]), torch.tensor([[False, True, True, True]])
    entropy = torch.tensor([[0.0, 1.0, 4.0, 9.0]])
    write_heatmap(tmp_path / "a.json", x0, answer, entropy, entropy.sqrt(), "t{}".format)
    (found,) = read_json(tmp_path / "a.json", {})["examples"]
    assert found["tokens"] == ["t1", "t2", "t3"]
    assert found["entropy"] == [1.0, 4.0, 9.0]
    # rates 1, 2, 3 of mean 2
    assert (found["beta"], found["ratio"]) == ([1.0, 2.0, 3.0], [0.5, 1.0, 1.5])
