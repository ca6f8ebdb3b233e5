"""diffu-GRPO against d1's formula written out row by row."""

import copy

import pytest
import torch
from datasets import Dataset
from torch.testing import assert_close
from trl import GRPOConfig

from weft_rl.config.schema import BaseConfig, SamplerConfig
from weft_rl.data.prompts import chat_prompt, task_prompt
from weft_rl.data.tasks import training_records
from weft_rl.models.loading import fresh_model
from weft_rl.models.tokenizer import tiny_config, tiny_tokenizer
from weft_rl.seeding import seed_for
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.task_rewards import trl_rewards

G, T = 4, 12
CLIP = 0.2


def small_model(seed=0):
    size = BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    return fresh_model(tiny_config(size), seed)


def by_length(completion, **_):
    """Any number that differs from completion to completion."""
    return (len(completion) * 7919 % 101) / 100


def trainer(tmp_path, *, mu=1, kl=0.0, objective="bnpo", micro_batch=8, reward=by_length, **more):
    model, reference = small_model(), small_model() if kl else None
    rows = [
        {
            "prompt": chat_prompt(task_prompt("tiny", "sudoku", record.fields)),
            "id": record.id,
            "fields": record.fields,
        }
        for record in training_records("sudoku", 8, 0)
    ]
    args = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        max_steps=more.pop("max_steps", 4),
        learning_rate=more.pop("learning_rate", 1e-2),
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=8 // micro_batch,
        steps_per_generation=8 // micro_batch,
        num_generations=G,
        num_iterations=mu,
        max_completion_length=T,
        epsilon=CLIP,
        beta=0.0,
        loss_type=objective,
        scale_rewards="none",
        use_bias_correction_kl=False,
        disable_dropout=True,
        activation_checkpointing=False,
        save_strategy="no",
        logging_steps=1,
        seed=more.pop("global_seed", 0),
    )
    return DiffuGRPOTrainer(
        model=model,
        reward_funcs=trl_rewards({"by_length": reward}),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        sampler=SamplerConfig(T, T, 4, temperature=1.0),
        seed=3,
        prompt_mask_probability=0.3,
        kl_coef=kl,
        ref_model=reference,
    )


def rollout(made):
    """One rollout of two groups, as the trainer scores it."""
    made.model.train()
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    rows = [made.train_dataset[i] for i in (0, 1) for _ in range(G)]
    return made._prepare_inputs(rows)


def row_log_probs(model, ids, shown, tokens, seed, mask_id):
    """d1's estimate for one completion: its prompt's mask redrawn here, everything else masked."""
    real = ids[shown.bool()]
    draw = torch.rand(len(real), generator=torch.Generator().manual_seed(int(seed)))
    prompt = torch.where(draw < 0.3, mask_id, real)
    canvas = torch.cat([prompt, torch.full((T,), mask_id)])[None]
    logits = model(input_ids=canvas).logits[0, len(prompt) : len(prompt) + len(tokens)]
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def closed_form(model, old_model, ref_model, batch, k, kl, objective):
    """The loss of one slice, one row at a time."""
    mask_id = model.config.mask_token_id
    rows, counts = [], []
    for i in range(len(batch["prompt_ids"])):
        length = int(batch["completion_mask"][i].sum())
        tokens = batch["completion_ids"][i, :length]
        args = (batch["prompt_ids"][i], batch["prompt_mask"][i], tokens)
        args = (*args, batch["mask_seeds"][i, k], mask_id)
        new = row_log_probs(model, *args)
        with torch.no_grad():
            old = row_log_probs(old_model, *args)
        ratio, a = (new - old).exp(), batch["advantages"][i]
        loss = -torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a)
        if kl:
            with torch.no_grad():
                ref = row_log_probs(ref_model, *args)
            loss = loss + kl * ((ref - new).exp() - (ref - new) - 1)
        rows.append(loss.sum())
        counts.append(length)
    total, lengths = torch.stack(rows), torch.tensor(counts)
    if objective == "grpo":
        return (total / lengths).mean()
    return total.sum() / (len(rows) * T if objective == "dr_grpo" else lengths.sum())


@pytest.mark.parametrize("objective", ["bnpo", "grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize(("mu", "kl"), [(1, 0.0), (1, 0.04), (3, 0.0), (3, 0.04)])
def test_loss_and_gradients_equal_the_closed_form(tmp_path, mu, kl, objective):
    made = trainer(tmp_path, mu=mu, kl=kl, objective=objective)
    batch = rollout(made)
    assert batch["advantages"].abs().max() > 0
    old = small_model()
    with torch.no_grad():  # away from the rollout's policy, so that ratios and clipping matter
        for parameter in made.model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(noise * 0.05 if mu > 1 else 0)
    for k in range(mu):
        made._step = k * made.slices
        plain = small_model()
        plain.load_state_dict(made.model.state_dict())
        made.model.zero_grad()
        found = made.compute_loss(made.model, batch)
        found.backward()
        wanted = closed_form(plain, old, small_model(), batch, k, kl, objective)
        wanted.backward()
        assert_close(found.detach(), wanted.detach(), atol=1e-6, rtol=1e-5)
        for ours, theirs in zip(made.model.parameters(), plain.parameters(), strict=True):
            assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_old_reference_and_new_agree_before_the_first_update(tmp_path):
    made = trainer(tmp_path, mu=2, kl=0.04)
    batch = rollout(made)
    assert torch.equal(batch["old_per_token_logps"], batch["ref_per_token_logps"])
    loss = made.compute_loss(made.model, batch)
    # every ratio is 1 and every KL 0: minus the mean advantage, weighted by length
    lengths = batch["completion_mask"].sum(1)
    expected = -(batch["advantages"] * lengths).sum() / lengths.sum()
    assert_close(loss.detach(), expected)
    assert made._metrics["train"]["kl"][-1] == 0


def test_advantage_is_the_reward_less_its_groups_mean(tmp_path):
    made = trainer(tmp_path)
    batch = rollout(made)
    rewards = torch.tensor(list(made._logs["rewards"]["by_length"])).view(2, G)
    assert_close(batch["advantages"].view(2, G), rewards - rewards.mean(1, keepdim=True))


def test_a_group_shares_its_prompt_mask_and_nothing_else_does(tmp_path):
    seeds = rollout(trainer(tmp_path, mu=3))["mask_seeds"].view(2, G, 3)
    assert (seeds == seeds[:, :1]).all()
    assert len(set(seeds[:, 0].flatten().tolist())) == 6
    assert seeds[0, 0, 0] == seed_for(3, "prompt mask", "train", 0, 0, 0)


def test_a_rows_log_probs_do_not_depend_on_longer_neighbours(tmp_path):
    made = trainer(tmp_path)
    batch = rollout(made)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    visible = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    keep, width = batch["completion_ids"].shape[1], batch["prompt_ids"].shape[1]
    made._mask_seeds = batch["mask_seeds"]
    whole, _, _ = made._get_per_token_logps_and_entropies(made.model, ids, visible, keep)
    short, _, _ = made._get_per_token_logps_and_entropies(
        made.model, ids[:, : width + 2], visible[:, : width + 2], 2
    )
    assert_close(whole[..., :2], short)


def losses(made):
    made.train()
    return [row["loss"] for row in made.state.log_history if "loss" in row]


def state(made):
    return [parameter.detach().clone() for parameter in made.model.parameters()]


def test_the_global_random_state_has_no_say(tmp_path):
    runs = []
    for global_state in (1, 2):
        made = trainer(tmp_path / str(global_state), mu=2, kl=0.04)
        torch.random.default_generator.manual_seed(global_state)
        runs.append((losses(made), state(made)))
    assert runs[0][0] == runs[1][0]
    assert all(map(torch.equal, runs[0][1], runs[1][1]))


@pytest.mark.parametrize("objective", ["dapo", "dr_grpo"])
def test_micro_batches_add_up_to_the_whole(tmp_path, objective):
    whole = trainer(tmp_path / "a", mu=2, objective=objective, micro_batch=8)
    split = trainer(tmp_path / "b", mu=2, objective=objective, micro_batch=2)
    losses(whole)
    losses(split)
    for one, other in zip(state(whole), state(split), strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_weights_move_and_stay_finite(tmp_path):
    made = trainer(tmp_path, mu=2, kl=0.04)
    before = state(made)
    losses(made)
    after = state(made)
    assert all(weights.isfinite().all() for weights in after)
    assert not all(map(torch.equal, before, after))


def test_equal_rewards_move_nothing(tmp_path):
    made = trainer(tmp_path, reward=lambda completion, **_: 0.5)
    before = copy.deepcopy(state(made))
    losses(made)
    assert all(map(torch.equal, before, state(made)))


def test_sampling_leaves_the_model_in_training_mode(tmp_path):
    made = trainer(tmp_path)
    rollout(made)
    assert made.model.training
