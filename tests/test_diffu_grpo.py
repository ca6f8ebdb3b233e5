"""diffu-GRPO against d1's formula written out row by row."""

from itertools import product

import pytest
import torch
from rl_trainer import (
    CLIP,
    PROMPT_MASK,
    G,
    T,
    assert_step,
    disturb,
    joined,
    losses,
    options,
    rollout,
    small_model,
    state,
    step_loss,
    trainer,
    twin,
)
from torch.testing import assert_close

from weft_rl.seeding import seed_for
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer


def row_log_probs(model, ids, shown, tokens, seed):
    """d1's estimate for one completion: its prompt's mask redrawn here, everything else masked."""
    real, mask_id = ids[shown.bool()], model.config.mask_token_id
    draw = torch.rand(len(real), generator=torch.Generator().manual_seed(int(seed)))
    prompt = torch.where(draw < PROMPT_MASK, mask_id, real)
    canvas = torch.cat([prompt, torch.full((T,), mask_id)])[None]
    logits = model(input_ids=canvas).logits[0, len(prompt) : len(prompt) + len(tokens)]
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def closed_form(model, old_model, ref_model, batch, k, kl, objective, micro):
    """The loss of one optimizer step, one row at a time."""
    rows, counts = [], []
    for i in range(len(batch["prompt_ids"])):
        length = int(batch["completion_mask"][i].sum())
        tokens = batch["completion_ids"][i, :length]
        args = (batch["prompt_ids"][i], batch["prompt_mask"][i], tokens, batch["mask_seeds"][i, k])
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
    if objective == "dr_grpo":
        return total.sum() / (len(rows) * T)
    if objective == "dapo":
        return total.sum() / lengths.sum()
    # d1: the mean over micro-batches of the mean over a micro-batch's tokens
    return (total.view(-1, micro).sum(1) / lengths.view(-1, micro).sum(1)).mean()


CASES = [
    *product([(1, 0.0), (2, 0.04)], ["bnpo", "grpo", "dr_grpo", "dapo"], [8, 2], [""]),
    *product([(1, 0.04), (2, 0.0), (2, 0.04)], ["bnpo", "grpo"], [8], ["LoRA"]),
    # d1's masks; two rows of a prompt share nothing but the prompt
    ((2, 0.04), "bnpo", 8, "own masks"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mu_kl", "objective", "micro", "other"), CASES)
def test_loss_and_gradients_equal_the_closed_form(tmp_path, mu_kl, objective, micro, other):
    (mu, kl), lora = mu_kl, other == "LoRA"
    blocks = {"optimizer": {"micro_batch_size": None if micro == 8 else micro}}
    blocks["masks"] = {"share_group_masks": other != "own masks"}
    chosen = options(num_iterations=mu, kl_coef=kl, loss_type=objective, **blocks)
    made = trainer(tmp_path, chosen, lora=lora)
    slices = rollout(made)
    batch = joined(slices)
    assert batch["advantages"].abs().max() > 0
    old = twin(made, lora)
    for k in range(mu):
        if k:  # the first pass is on the policy that sampled
            disturb(made.model)
        plain = twin(made, lora)
        wanted = closed_form(plain, old, small_model(), batch, k, kl, objective, micro)
        assert_step(made, slices, k, wanted, plain)


def test_before_the_first_update_ratios_are_one_and_the_reference_is_the_policy(tmp_path):
    made = trainer(tmp_path, options(num_iterations=2, kl_coef=0.04))
    slices = rollout(made)
    batch = joined(slices)
    # the first pass needs no old log-probs; the second has masks of its own, so they are computed
    assert not batch["old_log_probs"][:, 0].any()
    assert torch.equal(batch["old_log_probs"][:, 1], batch["ref_log_probs"][:, 1])
    loss, _ = step_loss(made, slices, 0)
    lengths = batch["completion_mask"].sum(1)
    expected = -(batch["advantages"] * lengths).sum() / lengths.sum()
    assert_close(loss, expected)
    assert made.metrics["kl"][-1] == 0
    step_loss(made, slices, 1)
    assert made.metrics["kl"][-1] == 0
    assert made.metrics["clip_ratio/region_mean"][-1] == 0


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_stays_the_start_while_the_policy_moves(tmp_path, lora):
    made = trainer(tmp_path, options(num_iterations=2, kl_coef=0.04), lora=lora)
    disturb(made.model)
    batch, start, now = joined(rollout(made)), small_model(), twin(made, lora)
    for i in (0, 5):
        length = int(batch["completion_mask"][i].sum())
        args = (batch["prompt_ids"][i], batch["prompt_mask"][i])
        args += (batch["completion_ids"][i, :length], batch["mask_seeds"][i, 1])
        for name, model in (("ref_log_probs", start), ("old_log_probs", now)):
            with torch.no_grad():
                wanted = row_log_probs(model, *args)
            assert_close(batch[name][i, 1, :length], wanted, atol=1e-6, rtol=1e-5)
    assert (batch["old_log_probs"] - batch["ref_log_probs"])[:, 1].abs().max() > 0.01


def test_one_pass_without_kl(tmp_path):
    """Neither old log-probabilities nor a reference; advantages minus the group's mean."""
    made, seen = trainer(tmp_path), []
    made.on_rollout = lambda step, rows, completions, rewards: seen.extend(rewards)
    batch = rollout(made)[0]
    assert made.ref_model is None
    assert not {"old_log_probs", "ref_log_probs"} & {*batch}
    rewards = torch.tensor(seen).view(2, G)
    assert_close(batch["advantages"].view(2, G), rewards - rewards.mean(1, keepdim=True))


def test_a_group_shares_its_prompt_mask_unless_rows_have_their_own(tmp_path):
    seeds = rollout(trainer(tmp_path, options(num_iterations=3)))[0]["mask_seeds"].view(2, G, 3)
    assert (seeds == seeds[:, :1]).all()
    assert len(set(seeds[:, 0].flatten().tolist())) == 6
    assert seeds[0, 0, 0] == seed_for(3, "prompt mask", "train", 0, 0, 0)
    made = trainer(tmp_path, options(num_iterations=3, masks={"share_group_masks": False}))
    assert len(rollout(made)[0]["mask_seeds"].unique()) == 3 * 2 * G


def test_one_forward_serves_a_group_and_changes_nothing(tmp_path):
    """Against the same rows sent through one by one."""
    made = trainer(tmp_path, options(num_iterations=2))
    slices = rollout(made)
    disturb(made.model)
    seen = []

    def count(_, args, kwargs):
        seen.append(len(kwargs["input_ids"]))

    made.model.register_forward_pre_hook(count, with_kwargs=True)
    shared, gradients = step_loss(made, slices, 1)
    assert sum(seen) == 2  # two groups
    single = trainer(tmp_path, options(num_iterations=2, optimizer={"micro_batch_size": 1}))
    single.model.load_state_dict(made.model.state_dict())
    single.rollout_ids = made.rollout_ids  # a rollout would have set it
    rows = [
        {n: v if n in ("num_items_in_batch", "loss_tokens") else v[i : i + 1] for n, v in s.items()}
        for s in slices
        for i in range(8)
    ]
    # d1's own weighting of micro-batches is not asked for here
    object.__setattr__(single.options, "loss_type", "dapo")
    seen.clear()
    single.model.register_forward_pre_hook(count, with_kwargs=True)
    apart, others = step_loss(single, rows, 1)
    assert sum(seen) == 8
    assert_close(shared, apart, atol=1e-7, rtol=1e-6)
    assert_close(gradients, others, atol=1e-6, rtol=1e-4)


def test_a_rows_log_probs_do_not_depend_on_longer_neighbours(tmp_path):
    made = trainer(tmp_path)
    batch = rollout(made)[0]
    whole, _, _ = made.log_probs(made.model, batch, 0)
    short = batch | {name: batch[name][:, :2] for name in ("completion_ids", "completion_mask")}
    cut, _, _ = made.log_probs(made.model, short, 0)
    assert_close(whole[..., :2], cut)


@pytest.mark.slow
def test_the_global_random_state_has_no_say(tmp_path):
    runs = []
    for global_state in (1, 2):
        made = trainer(tmp_path / str(global_state), options(num_iterations=2, kl_coef=0.04))
        torch.random.default_generator.manual_seed(global_state)
        before = state(made)
        runs.append((losses(made), state(made)))
        assert not all(map(torch.equal, before, runs[-1][1]))
    assert runs[0][0] == runs[1][0]
    assert all(map(torch.equal, runs[0][1], runs[1][1]))


def test_equal_rewards_move_nothing_and_are_counted(tmp_path):
    made = trainer(tmp_path, reward=lambda completion, **_: 0.5)
    before = state(made)
    losses(made)
    assert all(map(torch.equal, before, state(made)))
    rows = [row for row in made.state.log_history if "zero_std_groups" in row]
    assert {row["zero_std_groups"] for row in rows} == {2.0}


def test_the_public_trainer_works_in_a_users_script(tmp_path):
    """No run directory, transformers' own checkpoints, and what else is in output_dir stays."""
    run = trainer(tmp_path, save_strategy="steps", save_steps=4)
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    names = "reward_funcs args train_dataset processing_class"
    given = {name: getattr(run, name) for name in names.split()}
    made = DiffuGRPOTrainer(model=small_model(), **given)
    losses(made)
    assert {"mine.txt", "checkpoint-4"} <= {path.name for path in tmp_path.iterdir()}
    assert all(weights.isfinite().all() for weights in state(made))
    rollout(made)
    assert made.model.training  # sampling restores the mode
