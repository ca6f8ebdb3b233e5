"""Our losses against TRL's own, given the same log-probabilities."""

import pytest
from rl_trainer import CLIP, T, disturb, options, rollout, step_loss, trainer
from torch.testing import assert_close
from trl import GRPOTrainer


@pytest.mark.parametrize("kl", [0.0, 0.04])
@pytest.mark.parametrize("objective", ["bnpo", "grpo", "dr_grpo", "dapo", "gspo"])
def test_the_loss_is_trls(tmp_path, monkeypatch, objective, kl):
    made = trainer(tmp_path, options(loss_type=objective, num_iterations=2, kl_coef=kl))
    slices = rollout(made)
    disturb(made.model)
    ours, _ = step_loss(made, slices, 1)
    log_p, entropy, _ = made.log_probs(made.model, slices[0], 1)
    monkeypatch.setattr(
        made,
        "_get_per_token_logps_and_entropies",
        lambda *_, **__: (log_p[:, 0], entropy, None),
    )
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
        mine, trls = made._metrics["train"][name][-2:]
        assert mine == pytest.approx(trls, abs=1e-7)
