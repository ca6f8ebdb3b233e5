"""diffu-GRPO in a plain loop, without TRL: python examples/rl_loop.py MODEL

The steps and, with the same options, the weights are those of DiffuGRPOTrainer. G completions per
prompt, N rows = prompts x G, P prompt tokens, T generated tokens, C longest completion."""

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weft_rl import SamplerConfig, generate, load_model, load_tokenizer
from weft_rl.data.tasks import held_out_records, task_prompt, training_records
from weft_rl.diffusion.advantages import group_advantages
from weft_rl.diffusion.noise import mask_tokens
from weft_rl.diffusion.policy_losses import kl_k3, ppo_clip_loss
from weft_rl.rewards.sudoku import cell_accuracy
from weft_rl.sampler.prompts import encode_prompts
from weft_rl.seeding import seed_for

Reward = Callable[..., float]


def chats(tokenizer, rows: Sequence[dict]) -> dict[str, Tensor]:
    """input_ids and attention_mask of the rows' prompts, padded on the left: (N, P)."""
    prompts = [row["prompt"] for row in rows]
    ids, visible = encode_prompts(prompts, tokenizer, torch.device("cpu"))
    return {"input_ids": ids, "attention_mask": visible}


def log_probs(
    model, prompt: dict[str, Tensor], tokens: Tensor, width: int, seeds: Sequence[int], p: float
) -> Tensor:
    """d1's one-step estimate of log p of each token of the completions: (N, C).

    The completion, of `width` tokens, is fully masked, and each prompt token with probability p."""
    mask_id = model.config.mask_token_id
    ids, visible = prompt["input_ids"], prompt["attention_mask"]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    share = torch.full(ids.shape, p)
    noised, _ = mask_tokens(ids, share, visible.bool(), mask_id, generators)
    canvas = torch.full((len(ids), width), mask_id)
    logits = model(
        input_ids=torch.cat([noised, canvas], dim=1),
        attention_mask=torch.cat([visible, torch.ones_like(canvas)], dim=1),
    ).logits[:, ids.shape[1] : ids.shape[1] + tokens.shape[1]]
    return logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


@dataclass(frozen=True)
class Options:
    """Of train: G completions of each of `prompts`, mu = iterations; p: prompt mask probability."""

    rollouts: int = 4
    prompts: int = 4
    group: int = 4
    iterations: int = 2
    learning_rate: float = 1e-3
    clip: float = 0.5
    kl_coef: float = 0.04
    p: float = 0.15
    seed: int = 0


def score(rows: Sequence[dict], texts: Sequence[str], reward: Reward) -> list[float]:
    """Reward of each text, with the row's other columns as fields."""
    fields = [{name: row[name] for name in row if name != "prompt"} for row in rows]
    return [reward(text, **given) for text, given in zip(texts, fields, strict=True)]


def train(
    model,
    tokenizer,
    rows: Sequence[dict],
    reward: Reward,
    sampler: SamplerConfig,
    options: Options = Options(),
) -> list[float]:
    """Train the model in place; return the mean reward of each rollout.

    rows: prompt (a chat) and the reward's fields. sampler: with a temperature above 0."""
    o, reference, history = options, copy.deepcopy(model).eval(), []
    count = o.prompts * o.group  # N
    optimizer = torch.optim.AdamW(model.parameters(), lr=o.learning_rate, weight_decay=0.0)
    for step in range(o.rollouts):
        key = ("train", step * o.iterations)  # the trainer counts optimizer steps
        # 1. rollout: G completions per prompt
        batch = [rows[(step * o.prompts + i // o.group) % len(rows)] for i in range(count)]
        prompt = chats(tokenizer, batch)
        seeds = [seed_for(o.seed, "rollout", *key, row) for row in range(count)]
        ids, visible = prompt["input_ids"], prompt["attention_mask"]
        out = generate(model, ids, sampler, visible, seeds, tokenizer=tokenizer)
        lengths = (out.lengths + 1).clamp(max=sampler.gen_length)  # with the end token
        tokens = out.completions[:, : lengths.max()]
        inside = torch.arange(tokens.shape[1]) < lengths[:, None]  # (N, C)
        # 2. rewards and advantages: the reward minus the group's mean
        scores = score(batch, out.texts, reward)
        advantages = group_advantages(torch.tensor(scores), o.group)
        history.append(sum(scores) / len(scores))
        # 3. log-probabilities before the update; the prompt's mask is new in each iteration
        masks = [
            [seed_for(o.seed, "prompt mask", *key, row // o.group, k) for row in range(count)]
            for k in range(o.iterations)
        ]
        given = (prompt, tokens, sampler.gen_length)
        with torch.no_grad():
            old = [log_probs(model, *given, mask, o.p) for mask in masks]
            ref = [log_probs(reference, *given, mask, o.p) for mask in masks]
        # 4. PPO-clip with a KL penalty, averaged over the rollout's tokens; one step per iteration
        for k, mask in enumerate(masks):
            new = log_probs(model, *given, mask, o.p)
            loss, _ = ppo_clip_loss(torch.exp(new - old[k]), advantages, o.clip)
            loss = loss + o.kl_coef * kl_k3(new, ref[k])
            (loss * inside).sum().div(inside.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return history


def evaluate(model, tokenizer, rows: Sequence[dict], reward: Reward, sampler) -> float:
    """Mean reward of greedy completions."""
    out = generate(model, tokenizer, sampler, prompts=[row["prompt"] for row in rows])
    scores = score(rows, out.texts, reward)
    return sum(scores) / len(scores)


def rows_of(records) -> list[dict]:
    """Rows of the Sudoku task."""
    worded = [task_prompt("tiny", record.task, record.fields) for record in records]
    return [
        {"prompt": [{"role": "user", "content": text}], **record.fields}
        for text, record in zip(worded, records, strict=True)
    ]


if __name__ == "__main__":
    model, tokenizer = load_model(sys.argv[1]), load_tokenizer(sys.argv[1])
    rollout, greedy = (SamplerConfig(32, 32, 16, temperature=t) for t in (0.9, 0.0))
    train_rows = rows_of(training_records("sudoku", 64, seed=0))
    print("rewards:", train(model, tokenizer, train_rows, cell_accuracy, rollout))
    test_rows = rows_of(held_out_records("sudoku", 16, None))
    print("held out:", evaluate(model, tokenizer, test_rows, cell_accuracy, greedy))
