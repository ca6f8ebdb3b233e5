"""Steps whose loss or gradient is no number."""

import pytest
import torch
from test_cold_start_trainer import trainer
from transformers import TrainerCallback

from weft_rl.errors import UserError


def spoilt(folder, step, where, skip_steps=0):
    """A cold start whose loss, or else its gradient, is NaN in one step, counted from 1."""
    made = trainer(folder, "uniform")
    made.skip_steps, made.args.logging_nan_inf_filter = skip_steps, False
    weight = made.model.get_output_embeddings().weight

    def now(value):
        return value * torch.nan if made.state.global_step == step - 1 else value

    if where == "gradient":
        weight.register_hook(now)
    else:
        made.model.get_output_embeddings().register_forward_hook(lambda *given: now(given[-1]))
    return made


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_the_step_its_records_and_the_last_good_checkpoint_are_named(tmp_path, where):
    made = spoilt(tmp_path, 4, where)
    made.args.save_steps = made.state.save_steps = 3
    batches, look = [], made.checked
    made.checked = lambda loss, records: (batches.append(records), look(loss, records))[1]
    with pytest.raises(UserError) as told:
        made.train()
    records = ", ".join(map(str, batches[3]))
    assert f"sft, step 4: the {where} is not finite (records {records}); " in str(told.value)
    assert "the last good checkpoint is " in str(told.value)
    assert "checkpoints/sft/step-3; " in str(told.value)
    assert "reliability.skip_steps=1" in str(told.value)
    assert all(p.isfinite().all() for p in made.model.parameters())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_such_a_step_is_passed_over_and_changes_nothing(tmp_path, where, capsys):
    made = spoilt(tmp_path, 4, where, skip_steps=1)
    kept = {}
    take = made._not_finite
    made._not_finite = lambda model: (kept.update(before(model)), take(model))[1]

    class Compare(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 4:
                now = before(made.model)
                kept["same"] = all(torch.equal(kept[name], now[name]) for name in now)

    made.add_callback(Compare())
    made.train()
    assert kept["same"]
    assert f"step 4: the {where} is not finite" in capsys.readouterr().err
    lost = [row["loss"] != row["loss"] for row in rows(made)]
    assert lost == [where == "loss" and step == 4 for step in range(1, 7)]
    assert [row.get("skipped_steps") for row in rows(made)] == [None] * 3 + [1] * 3
    assert all(p.isfinite().all() for p in made.model.parameters())


def rows(made):
    return [row for row in made.state.log_history if "loss" in row]


def before(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_more_of_them_than_allowed_stop_it(tmp_path):
    made = spoilt(tmp_path, 2, "loss", skip_steps=1)
    made.skipped = 1  # as a checkpoint remembers
    with pytest.raises(UserError, match="step 2: the loss is not finite"):
        made.train()


def test_a_finite_loss_keeps_its_bits(tmp_path):
    made = trainer(tmp_path, "uniform")
    loss = torch.tensor(0.1, requires_grad=True)
    seen = made.checked(loss, [0])
    seen.backward()
    assert torch.equal(seen, loss)
    assert loss.grad == 1
