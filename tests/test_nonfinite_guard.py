"""Steps whose loss or gradient is not finite."""

import pytest
import torch
from small_cold_start import trainer
from transformers import TrainerCallback

from weft_rl.errors import UserError


class Weights(TrainerCallback):
    """A copy of the weights after each step."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, args, state, control, model=None, **_):
        self.steps.append([parameter.detach().clone() for parameter in model.parameters()])


def spoilt(folder, step, where, **options):
    """A cold start whose loss, or else its gradient, is NaN in one step, counted from 1."""
    made = trainer(folder, **options)
    head = made.model.get_output_embeddings()

    def spoil(value):
        return value * torch.nan if made.state.global_step == step - 1 else value

    if where == "gradient":
        head.weight.register_hook(spoil)
    else:
        head.register_forward_hook(lambda *given: spoil(given[-1]))
    made.weights = Weights()
    made.add_callback(made.weights)
    return made


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_step_records_and_the_last_good_checkpoint_are_named(tmp_path, where):
    made = spoilt(tmp_path, 4, where)
    batches, compute = [], made.compute_loss

    def noting(model, inputs, **kwargs):
        batches.append(made.records_of(inputs))
        return compute(model, inputs, **kwargs)

    made.compute_loss = noting
    with pytest.raises(UserError) as error:
        made.train()
    records = ", ".join(map(str, batches[3]))
    assert f"sft, step 4: the {where} is not finite (records {records}); " in str(error.value)
    assert "checkpoints/sft/step-3; " in str(error.value)
    assert "reliability.skip_steps=1" in str(error.value)
    assert all(p.isfinite().all() for p in made.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_skipped_step_changes_nothing(tmp_path, where, capsys):
    made = spoilt(tmp_path, 4, where, skip_steps=1)
    made.train()
    assert all(map(torch.equal, made.weights.steps[2], made.weights.steps[3]))
    assert f"step 4: the {where} is not finite" in capsys.readouterr().err
    rows = [row for row in made.state.log_history if "loss" in row]
    nan = [row["loss"] != row["loss"] for row in rows]
    assert nan == [where == "loss" and step == 4 for step in range(1, 7)]
    assert [row.get("skipped_steps") for row in rows] == [None] * 3 + [1] * 3
    assert all(p.isfinite().all() for p in made.model.parameters())
    # a checkpoint has their number: the next one is too many
    again = spoilt(tmp_path, 5, "loss", skip_steps=1)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints/sft/step-6"))
    assert again.skipped == 1
    other = spoilt(tmp_path / "other", 2, "loss", skip_steps=1)
    other.skipped = 1
    with pytest.raises(UserError, match="step 2: the loss is not finite"):
        other.train()


def test_a_finite_loss_keeps_its_bits(tmp_path):
    from weft_rl.trainers.cold_start import ColdStartTrainer

    made = trainer(tmp_path)
    batch = made.data_collator(made.train_dataset[:4])
    plain = ColdStartTrainer.compute_loss(made, made.model, batch)
    assert torch.equal(made.compute_loss(made.model, batch), plain)
