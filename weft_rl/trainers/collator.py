"""Cold-start batches, and the number of sequences per optimizer step. B batch, L sequence."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from weft_rl.data.sft_examples import Example
from weft_rl.diffusion.tensor_checks import IGNORED


class AnswerCollator:
    """Pads examples to the longest one; set `epoch` before an epoch.

    (epoch, example) seeds a sequence's masks, which are then equal in any batch and after resuming.
    pad_in_answer: attend to padding, mask it and train on it like the answer, as in LLaDA's
    fine-tuning; otherwise the attention mask excludes it."""

    def __init__(self, pad_id: int, pad_in_answer: bool = False) -> None:
        self.pad_id, self.pad_in_answer, self.epoch = pad_id, pad_in_answer, 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return input_ids, attention_mask, labels (B, L); example_ids (B, 2): epoch, index."""
        length = max(len(example.ids) for example in examples)
        input_ids = torch.full((len(examples), length), self.pad_id)
        attention_mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
        for row, example in enumerate(examples):
            input_ids[row, : len(example.ids)] = torch.tensor(example.ids)
            end = length if self.pad_in_answer else len(example.ids)
            attention_mask[row, :end] = 1
            labels[row, : len(example.ids)] = torch.tensor(example.labels)
            labels[row, len(example.ids) : end] = self.pad_id
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

    At the end of an epoch accelerate repeats its first sequences to fill the last batch. They are
    not counted: that batch gets `counted` (B,) bool, False for repeats."""
    marked, state = [*batches], accelerator.gradient_state
    if state.end_of_dataloader and state.remainder > 0:
        ids = marked[-1]["input_ids"]
        # new sequences come first, process by process
        position = accelerator.process_index * len(ids) + torch.arange(len(ids), device=ids.device)
        marked[-1] = marked[-1] | {"counted": position < state.remainder}
    counts = [
        int(each["counted"].sum()) if "counted" in each else len(each["input_ids"])
        for each in marked
    ]
    total = torch.tensor(counts, device=accelerator.device).sum()
    return marked, accelerator.reduce(total, reduction="sum")
