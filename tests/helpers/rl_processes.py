"""RL on one or more processes. Usage: [torchrun --nproc_per_node N] rl_processes.py FOLDER"""

import sys
from pathlib import Path

import torch
from rl_trainer import by_length, dataset, options, state, trained, trainer
from transformers import TrainerCallback

from weft_rl.stages.context import leave_together

MICRO = {"micro_batch_size": 2}
RUNS = {
    "bnpo micro": {"loss_type": "bnpo", "optimizer": MICRO},
    "dapo": {"loss_type": "dapo", "optimizer": MICRO},
    "espo": {"loss_type": "gspo", "estimator": "elbo", "loss": {"kl_estimator": "k2_sequence"}},
    "wd1": {"loss_type": "wd1"},
    "spg": {"loss_type": "spg", "estimator": "elbo", "loss": {"kl_estimator": "k2_sequence"}},
    "coupled": {"loss_type": "grpo", "estimator": "coupled", "loss": {"baseline": "leave_one_out"}},
    "trace": {"loss_type": "grpo", "estimator": "trace"},
    "choice": {"loss_type": "dapo", "loss": {"top_entropy_share": 0.3, "kl_cov_share": 0.05}},
    "resample": {"loss_type": "dapo", "rollout": {"resample": 2}},
    "failing record": {"loss_type": "bnpo"},
    # with an active clip
    "no reference": {"kl_coef": 0.0, "optimizer": MICRO, "loss": {"clip_coef": 1e-3}},
    "adapter": {"loss_type": "grpo"},
    # the eight completions of a prompt are split over both processes
    "one group": {"loss_type": "wd1", "num_prompts": 1, "num_generations": 8},
}


def half_equal(completion, **_):
    """Often equal, so that some groups are resampled."""
    return float(len(completion) % 5 == 0)


def fails_on_one_record(completion, puzzle, **_):
    """Fails on all completions of one process, not of the full rollout."""
    if puzzle == dataset(1)[0]["fields"]["puzzle"]:
        raise ValueError("no reward of this record")
    return by_length(completion)


# The only step metrics that depend on the number of processes.
TIMES = {"step_time"}
REWARDS = {"resample": half_equal, "failing record": fails_on_one_record}


class Gradients(TrainerCallback):
    def __init__(self):
        self.kept = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.kept.append([parameter.grad.clone() for parameter in trained(model)])


def results(folder, processes):
    made = {}
    for name, given in RUNS.items():
        chosen = options(**({"num_iterations": 2, "kl_coef": 0.04} | given))
        run = trainer(
            folder / name,
            chosen,
            reward=REWARDS.get(name, by_length),
            lora=name.startswith("adapter"),
            processes=processes,
            max_steps=6,
            records=dataset(5),  # prompts: the last batch of an epoch is incomplete
        )
        assert run.accelerator.num_processes == processes
        gradients = Gradients()
        run.add_callback(gradients)
        run.train()
        rows = [row for row in run.state.log_history if "loss" in row]
        made[name] = {
            "logs": [{key: row[key] for key in row.keys() - TIMES} for row in rows],
            "gradients": gradients.kept,
            "weights": state(run),
        }
    return made


if __name__ == "__main__":
    place = Path(sys.argv[1])
    count = int(sys.argv[2])
    found = results(place / f"scratch-{count}", count)
    if torch.distributed.get_rank() == 0:
        torch.save(found, place / f"of-{count}.pt")
    leave_together()
