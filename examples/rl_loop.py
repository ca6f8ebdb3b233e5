"""diffu-GRPO in a plain loop, without TRL: python examples/rl_loop.py MODEL

The steps and, with the same options, the weights are those of DiffuGRPOTrainer. G completions per
prompt, N rows = prompts x G, P prompt tokens, T generated tokens, C longest completion."""

import copy
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weft_rl import SamplerConfig, generate, load_model, load_tokenizer
from weft_rl.data.tasks import held_out_records, task_prompt, training_records
from weft_rl.diffusion.advantages import group_advantages
from weft_rl.diffusion.noise import mask_tokens
from weft_rl.diffusion.policy_losses import kl_k3, ppo_clip_loss
from weft_rl.rewards.sudoku import cell_accuracy
from weft_rl.seeding import seed_for

Reward = Callable[..., float]


def chats(tokenizer, rows: Sequence[dict]) -> dict[str, Tensor]:
    """input_ids and attention_mask of the rows' prompts, padded on the left: (N, P)."""
    prompts = [row["prompt"] for row in rows]
    return tokenizer.apply_chat_template(
        prompts,
        add_generation_prompt=True,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        return_dict=True,
    )


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


def train(
    model,
    tokenizer,
    rows: Sequence[dict],
    reward: Reward,
    sampler: SamplerConfig,
    *,
    rollouts: int = 4,
    prompts: int = 4,
    group: int = 4,
    iterations: int = 2,
    learning_rate: float = 1e-3,
    clip: float = 0.5,
    kl_coef: float = 0.04,
    p: float = 0.15,
    seed: int = 0,
) -> list[float]:
    """Train the model in place; return the mean reward of each rollout.

    rows: prompt (a chat) and the reward's fields. sampler: with a temperature above 0."""
    reference = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    history = []
    for step in range(rollouts):
        key = ("train", step * iterations)  # the trainer counts optimizer steps
        # 1. rollout: G completions per prompt
        batch = [rows[(step * prompts + i) % len(rows)] for i in range(prompts)]
        batch = [row for row in batch for _ in range(group)]
        prompt = chats(tokenizer, batch)
        seeds = [seed_for(seed, "rollout", *key, row) for row in range(len(batch))]
        out = generate(
            model,
            prompt["input_ids"],
            sampler,
            prompt["attention_mask"],
            seeds,
            tokenizer=tokenizer,
        )
        lengths = (out.lengths + 1).clamp(max=sampler.gen_length)  # with the end token
        tokens = out.completions[:, : lengths.max()]
        inside = torch.arange(tokens.shape[1]) < lengths[:, None]  # (N, C)
        # 2. rewards and advantages: the reward minus the group's mean
        fields = [{name: row[name] for name in row if name != "prompt"} for row in batch]
        scores = [reward(text, **given) for text, given in zip(out.texts, fields, strict=True)]
        advantages = group_advantages(torch.tensor(scores), group)
        history.append(sum(scores) / len(scores))
        # 3. log-probabilities before the update; the prompt's mask is new in each iteration
        masks = [
            [seed_for(seed, "prompt mask", *key, row // group, k) for row in range(len(batch))]
            for k in range(iterations)
        ]

        def estimate(network, k, given=(prompt, tokens, sampler.gen_length), masks=masks):
            return log_probs(network, *given, masks[k], p)

        with torch.no_grad():
            old = [estimate(model, k) for k in range(iterations)]
            ref = [estimate(reference, k) for k in range(iterations)]
        # 4. PPO-clip with a KL penalty, averaged over the rollout's tokens; one step each
        for k in range(iterations):
            new = estimate(model, k)
            loss, _ = ppo_clip_loss(torch.exp(new - old[k]), advantages, clip)
            loss = loss + kl_coef * kl_k3(new, ref[k])
            (loss * inside).sum().div(inside.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return history


def evaluate(model, tokenizer, rows: Sequence[dict], reward: Reward, sampler) -> float:
    """Mean reward of greedy completions."""
    out = generate(model, tokenizer, sampler, prompts=[row["prompt"] for row in rows])
    fields = [{name: row[name] for name in row if name != "prompt"} for row in rows]
    scores = [reward(text, **given) for text, given in zip(out.texts, fields, strict=True)]
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
    rollout, greedy = (SamplerConfig(256, 32, 64, temperature=t) for t in (0.9, 0.0))
    train_rows = rows_of(training_records("sudoku", 64, seed=0))
    print("rewards:", train(model, tokenizer, train_rows, cell_accuracy, rollout))
    test_rows = rows_of(held_out_records("sudoku", 16, None))
    print("held out:", evaluate(model, tokenizer, test_rows, cell_accuracy, greedy))
