"""Checks of the prompts and reward values of diffusion RL."""

from collections.abc import Iterable
from typing import Any

from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase

from weft_rl.errors import UserError
from weft_rl.trainers.reward_adapter import TRL_ARGUMENTS, BatchReward, TrlReward

# Rollouts in a row on which a batched reward function may fail.
_MOST_FAILED = 3


def check_rows(
    dataset: Any,
    args: Any,
    tokenizer: PreTrainedTokenizerBase,
    rewards: Iterable[Any],
    model_config: Any,
) -> None:
    """Check columns and length of the prompts: with too few TRL silently trains no step.

    Raises ValueError with the column, the reward function or the number of prompts."""
    columns = getattr(dataset, "column_names", None)
    if columns is None:
        raise ValueError(
            "train_dataset: give a datasets.Dataset, or a list of rows, with a column 'prompt'"
        )
    if "prompt" not in columns:
        raise ValueError(f"train_dataset has no column 'prompt', only {', '.join(columns)}")
    for reward in rewards:
        if not isinstance(reward, TrlReward) or "fields" in columns:
            continue
        first = () if isinstance(reward, BatchReward) else (reward.first_parameter,)
        for name in reward.required:
            if name not in columns and name not in (*TRL_ARGUMENTS, *first):
                raise ValueError(
                    f"reward {reward.__name__}: needs the column {name!r}, and train_dataset has "
                    f"{', '.join(columns)}"
                )
    needed = args.generation_batch_size // args.num_generations
    if not hasattr(dataset, "__len__"):
        raise ValueError("train_dataset: is a stream; give a datasets.Dataset with a length")
    if len(dataset) < needed:
        raise ValueError(f"train_dataset has {len(dataset)} rows, a rollout {needed} prompts")
    positions = getattr(model_config, "max_position_embeddings", None)
    length = args.sampler.gen_length
    if positions is not None and length >= positions:
        raise ValueError(
            f"max_completion_length={length}: the model has {positions} positions; give a "
            "SamplerConfig with a lower gen_length"
        )
    _check_prompts(dataset["prompt"], tokenizer)


def _check_prompts(prompts: Iterable[Any], tokenizer: PreTrainedTokenizerBase) -> None:
    kinds = set()
    for row, prompt in enumerate(prompts):
        kinds.add(isinstance(prompt, str))
        if len(kinds) > 1:
            raise ValueError(f"train_dataset, row {row}: prompts are texts and chats; use one form")
        if not isinstance(prompt, str) and prompt and prompt[-1].get("role") == "assistant":
            raise ValueError(
                f"train_dataset, row {row}: the prompt ends with the assistant's answer; remove "
                "that message"
            )
    if kinds == {False} and tokenizer.chat_template is None:
        raise ValueError(
            "the tokenizer has no chat template, and prompts are chats; set "
            "tokenizer.chat_template, or give the prompts as texts"
        )


def refuse_failing(rewards: Iterable[Any]) -> None:
    """Raise UserError if a function failed on the entire rollout or left its bounds; collective.

    Only TrlReward functions are checked. All processes raise or none: failures on a single process
    may be chance."""
    for reward in rewards:
        if not isinstance(reward, TrlReward):
            continue
        counts = (reward.failures[:1], len(reward.failures), reward.calls, reward.outside[:1])
        parts = gather_object([counts])
        calls = sum(part[2] for part in parts)
        outside = [value for part in parts for value in part[3]]
        if outside:
            raise UserError(
                f"reward {reward.__name__}: is {outside[0]}; a task's rewards must be in [0, 1], "
                "set their weights with rl.rollout.reward_weights"
            )
        failed = bool(calls) and sum(part[1] for part in parts) == calls
        reward.failed_rollouts = reward.failed_rollouts + 1 if failed else 0
        # one error of a batched function fails all of its completions
        if reward.failed_rollouts >= (_MOST_FAILED if isinstance(reward, BatchReward) else 1):
            raise UserError(
                f"reward {reward.__name__}: failed on all {calls} completions, first with "
                f"{parts[0][0][0]}; check the function and the records' fields"
            )
