"""CPU time of a pass over a rollout and of an RL iteration, compared with d1's loop.

Usage: python benchmarks/rl_step.py CHECKPOINT [quick]. CHECKPOINT: a tiny model after its cold
start. Sides alternate on the same weights, prompts and sampler. Set OMP_NUM_THREADS=1."""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from d1_loop import CLIP, KL, iteration
from datasets import Dataset
from machine import save
from torch import Tensor

from weft_rl.config.rl import RLConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.prompts import chat_prompt
from weft_rl.data.tasks import task_prompt, training_records
from weft_rl.models.loading import load_model, load_tokenizer
from weft_rl.rewards.sudoku import cell_accuracy
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.grpo_config import DiffuGRPOConfig
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING
from weft_rl.trainers.reward_adapter import trl_rewards

PROMPTS, G, T, STEPS, TEMPERATURE, MAX_GRAD_NORM = 32, 8, 32, 16, 1.0, 0.5
ROWS = PROMPTS * G
CPU = torch.device("cpu")
# measured turns; CPU seconds hardly vary
ROUNDS = 2
RECORDS = training_records("sudoku", PROMPTS, 0)
ITEMS = [
    {"prompt": chat_prompt(task_prompt("tiny", "sudoku", r.fields)), "id": r.id, "fields": r.fields}
    for r in RECORDS
]


def built(start: str, passes: int, per: str, folder: str) -> DiffuGRPOTrainer:
    """Our trainer with its optimizer, on the benchmark's prompts."""
    base = RLConfig(num_prompts=PROMPTS, num_generations=G, num_iterations=passes, kl_coef=KL)
    options = replace(
        base,
        masks=replace(base.masks, share_group_masks=per == "group"),
        loss=replace(base.loss, clip_coef=CLIP),
    )
    made = DiffuGRPOTrainer(
        model=load_model(start, CPU, torch.float32),
        reward_funcs=trl_rewards({"cell_accuracy": cell_accuracy}),
        args=DiffuGRPOConfig(
            **DiffuGRPOConfig.method_arguments(options) | {"temperature": TEMPERATURE},
            output_dir=folder,
            seed=0,
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_train_batch_size=ROWS,
            sampler=SamplerConfig(T, T, STEPS),
            **{ACTIVATION_CHECKPOINTING: False},
            max_steps=1,
        ),
        train_dataset=Dataset.from_list(ITEMS),
        processing_class=load_tokenizer(start),
        ref_model=load_model(start, CPU, torch.float32),
    )
    made.current_gradient_accumulation_steps = 1
    made.create_optimizer()
    return made


def our_iteration(made: DiffuGRPOTrainer) -> None:
    """One rollout and its optimizer steps, as in the training loop."""
    rows = [made.train_dataset[i] for i in range(PROMPTS) for _ in range(G)]
    for _ in range(made.num_iterations):
        made.training_step(made.model, rows, None)
        torch.nn.utils.clip_grad_norm_(made.model.parameters(), MAX_GRAD_NORM)
        made.optimizer.step()
        made.optimizer.zero_grad()


def d1_iteration(start: str, passes: int) -> Callable[[], None]:
    """d1's loop on the same prompts, with separate models and optimizer."""
    tokenizer = load_tokenizer(start)
    model, reference = (load_model(start, CPU, torch.float32) for _ in range(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    text = tokenizer.apply_chat_template(
        [item["prompt"] for item in ITEMS], add_generation_prompt=True, tokenize=True
    )
    prompts = torch.tensor(text["input_ids"]).repeat_interleave(G, 0)  # all of equal length
    fields = [record.fields for record in RECORDS for _ in range(G)]

    def score(tokens: Tensor) -> Tensor:
        texts = tokenizer.batch_decode(tokens.tolist())
        pairs = zip(texts, fields, strict=True)
        return torch.tensor([cell_accuracy(text, **record) for text, record in pairs])

    def one() -> None:
        iteration(
            model,
            reference,
            optimizer,
            prompts,
            score,
            group=G,
            passes=passes,
            length=T,
            steps=STEPS,
            temperature=TEMPERATURE,
            max_grad_norm=MAX_GRAD_NORM,
            seed=0,
        )

    return one


def timed(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each side, alternating, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            begun = time.process_time()
            side()
            if turn:
                seconds[name].append(time.process_time() - begun)
    return {name: median(values) for name, values in seconds.items()}


def log_prob_passes(start: str, folder: str, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a pass over a rollout with one forward per group and one per row."""
    sides = {per: built(start, 2, per, folder) for per in ("group", "row")}
    slices = {}
    for per, made in sides.items():
        made.model.train()
        rows = [made.train_dataset[i] for i in range(PROMPTS) for _ in range(G)]
        slices[per] = made._prepare_inputs(rows)

    def forward(per: str) -> None:
        with torch.no_grad():
            sides[per].log_probs(sides[per].model, slices[per], 1)

    def backward(per: str) -> None:
        sides[per].model.zero_grad()
        sides[per]._step = 1
        sides[per].compute_loss(sides[per].model, slices[per]).backward()

    return {
        name: timed({per: partial(act, per) for per in sides}, rounds)
        for name, act in (("log-probs", forward), ("loss and gradient", backward))
    }


def main(start: str, *, quick: bool) -> None:
    """Measure and write the results."""
    rounds = 1 if quick else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        shared = log_prob_passes(start, folder, rounds)
        whole = {}
        for passes in (4, 8):
            ours = partial(our_iteration, built(start, passes, "group", folder))
            whole[passes] = timed({"ours": ours, "d1": d1_iteration(start, passes)}, rounds)
    setting = {"prompts": PROMPTS, "G": G, "gen_length": T, "steps": STEPS}
    save("rl_step", {"setting": setting, "passes": shared, "iteration": whole}, quick=quick)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/rl_step.py CHECKPOINT [quick]")
    main(sys.argv[1], quick=sys.argv[2:] == ["quick"])
