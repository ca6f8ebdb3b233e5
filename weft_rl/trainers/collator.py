"""Batches of a cold start, and how many sequences an optimizer step has.

B batch, L sequence."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from weft_rl.data.sft_examples import Example

# transformers' label of a token that is not trained on
IGNORED = -100


class AnswerCollator:
    """Pads examples to the longest one; set `epoch` before an epoch.

    (epoch, example) seeds a sequence's masks, which are the same in any batch and after a resume.
    pad_in_answer: padding is visible, masked and trained on like the answer before it, as in
    LLaDA's fine-tuning; else the model does not see it."""

    def __init__(self, pad_id: int, pad_in_answer: bool = False) -> None:
        self.pad_id, self.pad_in_answer, self.epoch = pad_id, pad_in_answer, 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns input_ids, attention_mask, labels (B, L) long; example_ids (B, 2): epoch, index.

        labels are -100 outside the answer."""
        length = max(len(example.ids) for example in examples)
        input_ids = torch.full((len(examples), length), self.pad_id)
        attention_mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
        for row, example in enumerate(examples):
            input_ids[row, : len(example.ids)] = torch.tensor(example.ids)
            end = length if self.pad_in_answer else len(example.ids)
            attention_mask[row, :end] = 1
            labels[row, example.prompt_length : end] = input_ids[row, example.prompt_length : end]
        ids = torch.tensor([[self.epoch, example.index] for example in examples])
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "example_ids": ids,
        }


def count_sequences(
    batches: Sequence[dict[str, Any]], accelerator: Accelerator
) -> tuple[list[dict[str, Any]], Tensor]:
    """A step's batches and its number of sequences () over all processes; collective.

    At the end of an epoch accelerate repeats some of its first sequences, so that every process has
    as many. They count in no step: the batch gets `counted` (B,) bool, False for them."""
    marked, state = [*batches], accelerator.gradient_state
    if state.end_of_dataloader and state.remainder > 0:
        ids = marked[-1]["input_ids"]
        # the new sequences come first, process by process
        position = accelerator.process_index * len(ids) + torch.arange(len(ids), device=ids.device)
        marked[-1] = marked[-1] | {"counted": position < state.remainder}
    counts = [
        int(each["counted"].sum()) if "counted" in each else len(each["input_ids"])
        for each in marked
    ]
    total = torch.tensor(counts, device=accelerator.device).sum()
    return marked, accelerator.reduce(total, reduction="sum")
