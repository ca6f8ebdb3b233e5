"""Every objective and estimator through the trainer, against loops over rows, views and tokens."""

from math import ceil

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
from trl import GRPOTrainer

from weft_rl.sampler import SamplerConfig
from weft_rl.trainers.masked_log_probs import RolloutBatch

PAIRS = [
    ("coupled", "bnpo", "k3"),
    ("random_mask", "dapo", "k3"),
    ("trace", "grpo", "k3"),
    ("one_step", "gspo", "k3"),
    ("elbo", "gspo", "k2_sequence"),
    ("one_step", "wd1", "k3"),
    ("elbo", "wd1", "k2_sequence"),
    ("elbo", "spg", "k2_sequence"),
]


def prompt_of(batch, i, k, mask_id):
    real = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()]
    generator = torch.Generator().manual_seed(int(batch["mask_seeds"][i, k]))
    return torch.where(torch.rand(len(real), generator=generator) < PROMPT_MASK, mask_id, real)


def view_tokens(model, batch, views, i, k):
    """log p of row i's tokens in each view, one forward after another: (D, length)."""
    mask_id = model.config.mask_token_id
    length = int(batch["completion_mask"][i].sum())
    tokens = batch["completion_ids"][i, :length]
    prompt = prompt_of(batch, i, k, mask_id)
    rows = []
    for hidden in views.masked[i]:
        shown = batch["canvas"][i] if "canvas" in batch else tokens
        canvas = [mask_id if hidden[place] else int(shown[place]) for place in range(T)]
        logits = model(torch.cat([prompt, torch.tensor(canvas)])[None]).logits[0]
        logits = logits[len(prompt) : len(prompt) + length]
        rows.append(logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0])
    return torch.stack(rows)


def summed(model, batch, views, k, made_of_bounds):
    """Each row's estimate of each token, the upper bound, and which tokens count: lists of
    (length,). A bound counts all of a completion's, seen or not."""
    lower, upper, scored = [], [], []
    for i in range(len(batch["prompt_ids"])):
        log_p = view_tokens(model, batch, views, i, k)
        weight = views.weight[i, :, : log_p.shape[1]]
        lower.append((log_p * weight).sum(0))
        inside = (weight * (1.5 * log_p).exp()).sum(0)
        hit = weight.sum(0) > 0
        share = hit.sum() / len(hit)  # of a completion's tokens, that some view masks
        upper.append(torch.where(hit, torch.where(hit, inside, 1.0).log() / 1.5 / share, 0.0))
        answer = torch.ones_like(hit)
        scored.append(answer if made_of_bounds else hit)
    return lower, upper, scored


def expected(objective, new, old, ref, advantages, kl_coef, kl):
    """The objective's loss from lists over rows."""
    (lower, upper, scored), rows = new, []
    for i, a in enumerate(advantages):
        hit, ratio = scored[i], (lower[i] - old[i]).exp()
        count = hit.sum().clamp(min=1)
        if objective == "wd1":
            loss = -a * lower[i]
        elif objective == "spg":
            loss = -a * (lower[i] if a > 0 else (upper[i] + lower[i]) / 2)
        else:
            if objective == "gspo":
                ratio = ((lower[i] - old[i])[hit].sum() / count).exp() * torch.ones(len(hit))
            loss = -torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a)
        if kl_coef and kl == "k3":
            loss = loss + kl_coef * ((ref[i] - lower[i]).exp() - (ref[i] - lower[i]) - 1)
        elif kl_coef:
            loss = loss + kl_coef * (lower[i] - ref[i])[hit].sum() ** 2 / count / 2
        rows.append((loss * hit).sum())
    counts = torch.stack([hit.sum() for hit in scored])
    if objective in ("gspo", "grpo"):
        return (torch.stack(rows) / counts.clamp(min=1)).mean()
    if objective == "wd1":
        return torch.stack(rows).sum() / (len(rows) / G)
    return torch.stack(rows).sum() / counts.sum()


@pytest.mark.slow
@pytest.mark.parametrize("kl_coef", [0.0, 0.04])
@pytest.mark.parametrize(("estimator", "objective", "kl"), PAIRS)
def test_loss_and_gradients_equal_loops_over_rows(tmp_path, estimator, objective, kl, kl_coef):
    blocks = {"loss": {"kl_estimator": kl}}
    if estimator not in ("one_step", "coupled"):
        blocks["masks"] = {"num_mc_samples": 3}
    given = {"kl_coef": kl_coef, "estimator": estimator, "loss_type": objective, **blocks}
    chosen = options(num_iterations=2, **given)
    sampler = SamplerConfig(T, 6, 6, temperature=1.0)  # two blocks, two tokens a step
    made = trainer(tmp_path, chosen, sampler=sampler)
    slices = rollout(made)
    batch = joined(slices)
    old_model = twin(made)
    disturb(made.model)
    plain, views = twin(made), made.views(batch, 1)
    with torch.no_grad():
        old, _, _ = summed(old_model, batch, views, 1, estimator == "elbo")
        ref, _, _ = summed(small_model(), batch, views, 1, estimator == "elbo")
    new = summed(plain, batch, views, 1, estimator == "elbo")
    wanted = expected(objective, new, old, ref, batch["advantages"], kl_coef, kl)
    assert_step(made, slices, 1, wanted, plain)


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "objective", "kl"), PAIRS)
def test_micro_batches_add_up_to_the_whole(tmp_path, estimator, objective, kl):
    found = []
    for size in (None, 2):
        # bnpo weighs micro-batches alike, as d1 does; dapo is its sum over the whole
        loss_type = "dapo" if objective == "bnpo" else objective
        given = {"estimator": estimator, "loss_type": loss_type, "loss": {"kl_estimator": kl}}
        given |= {"num_iterations": 2, "kl_coef": 0.04, "optimizer": {"micro_batch_size": size}}
        chosen = options(**given)
        made = trainer(tmp_path / str(size), chosen, max_steps=2)
        losses(made)
        found.append(state(made))
    assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_advantages_of_the_objectives(tmp_path):
    batch = {
        name: rollout(trainer(tmp_path, options(**given)))[0]["advantages"].view(2, G)
        for name, given in (
            ("mean", {}),
            ("leave_one_out", {"loss": {"baseline": "leave_one_out"}}),
            ("z_score", {"loss": {"baseline": "z_score"}}),
            ("wd1", {"loss_type": "wd1"}),
        )
    }
    mean = batch["mean"]
    assert_close(batch["leave_one_out"], mean * 4 / 3)
    assert_close(batch["z_score"], mean / (mean.std(1, keepdim=True) + 1e-4))
    assert_close(batch["wd1"], mean.softmax(1) - (-mean).softmax(1))


def test_only_the_top_share_of_entropies_is_trained_on(tmp_path):
    chosen = options(loss_type="dapo", loss={"top_entropy_share": 0.25})
    made = trainer(tmp_path, chosen)
    slices = rollout(made)
    batch = joined(slices)
    seen = batch["completion_mask"].bool()
    _, entropy, _ = made.log_probs(made.model, batch, 0)
    kept = batch["entropy_mask"][:, 0]
    wanted = ceil(0.25 * int(seen.sum()))
    # completions of a group share the prediction, so entropies come in ties of up to G
    assert wanted <= int(kept.sum()) < wanted + G
    assert entropy[kept].min() >= entropy[seen & ~kept].max()
    found, _ = step_loss(made, slices, 0)
    a = batch["advantages"][:, None]
    assert_close(found, -(a * kept).sum() / seen.sum())


def test_tokens_of_the_highest_covariance_are_held(tmp_path):
    chosen = options(
        loss_type="dapo", num_iterations=2, loss={"kl_cov_share": 0.1, "kl_cov_coef": 2.0}
    )
    plain_options = options(loss_type="dapo", num_iterations=2)
    made, plain = trainer(tmp_path / "a", chosen), trainer(tmp_path / "b", plain_options)
    slices, others = rollout(made), rollout(plain)
    batch = joined(slices)
    held, seen = batch["kl_cov_mask"][:, 1], batch["completion_mask"].bool()
    assert int(held.sum()) == ceil(0.1 * int(seen.sum()))
    old, a = batch["old_log_probs"][:, 1], batch["advantages"][:, None].expand(held.shape)
    together = (old - old[seen].mean()) * (a - a[seen].mean())
    assert together[held].min() > together[seen & ~held].max()
    disturb(made.model)
    disturb(plain.model)
    found, _ = step_loss(made, slices, 1)
    without, _ = step_loss(plain, others, 1)
    log_p, _, _ = made.log_probs(made.model, batch, 1)
    extra = 2.0 * ((log_p[:, 0] - old).abs() * held).sum() / seen.sum()
    assert_close(found, without + extra.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", [{}, {"threshold": 1.0}, {"threshold": 0.03}, {"factor": 0.5}])
def test_a_trace_follows_the_sampler(tmp_path, rule):
    sampler = SamplerConfig(T, T, 4, temperature=1.0, **rule)
    chosen = options(estimator="trace", masks={"num_mc_samples": T})
    made = trainer(tmp_path, chosen, sampler=sampler)
    batch = rollout(made)[0]
    # a slice a step; what a slice is scored on was committed in its step
    views = made.views(batch, 0)
    answer = RolloutBatch.of(batch, T).answer
    assert torch.equal(views.loss_mask, answer)
    for row, order in enumerate(batch["unmask_step"]):
        steps = sorted({*order[answer[row]].tolist()})
        slices = [own > 0 for own in views.weight[row] if own.any()]
        assert len(slices) == len(steps)
        for step, own in zip(steps, slices, strict=True):
            assert torch.equal(own, (order == step) & answer[row])


def test_masks_of_a_bound_follow_the_row_not_the_batch(tmp_path):
    made = trainer(tmp_path, options(estimator="elbo", loss_type="spg"))
    batch = rollout(made)[0]
    whole = made.views(batch, 0)
    rows = {
        name: value[5:6] if len(value.shape) and name != "loss_tokens" else value
        for name, value in batch.items()
    }
    alone = made.views(rows, 0)
    assert torch.equal(whole.masked[5:6], alone.masked)


@pytest.mark.slow
@pytest.mark.parametrize("kl", [0.0, 0.04])
@pytest.mark.parametrize("objective", ["bnpo", "grpo", "dr_grpo", "dapo", "gspo"])
def test_the_loss_is_trls(tmp_path, monkeypatch, objective, kl):
    made = trainer(tmp_path, options(loss_type=objective, num_iterations=2, kl_coef=kl))
    slices = rollout(made)
    disturb(made.model)
    ours, _ = step_loss(made, slices, 1)
    log_p, entropy, _ = made.log_probs(made.model, slices[0], 1)
    told = (log_p[:, 0], entropy, None)
    monkeypatch.setattr(made, "_get_per_token_logps_and_entropies", lambda *_, **__: told)
    # TRL's settings for the same loss; its own KL correction is not d1's
    made.loss_type = "grpo" if objective == "gspo" else objective
    made.importance_sampling_level = "sequence" if objective == "gspo" else "token"
    made.beta, made.args.use_bias_correction_kl = kl, False
    made.epsilon_low = made.epsilon_high = CLIP
    made.max_completion_length, made.current_gradient_accumulation_steps = T, 1
    inputs = slices[0] | {"old_per_token_logps": slices[0]["old_log_probs"][:, 1]}
    if kl:
        inputs["ref_per_token_logps"] = slices[0]["ref_log_probs"][:, 1]
    theirs = GRPOTrainer._compute_loss(made, made.model, inputs)
    assert_close(ours, theirs.detach(), atol=1e-7, rtol=1e-6)
    # and so are the metrics beside it
    for name in ("entropy", "clip_ratio/region_mean", *(["kl"] if kl else [])):
        mine, trls = made.metrics[name][-2:]
        assert mine == pytest.approx(trls, abs=1e-7)
