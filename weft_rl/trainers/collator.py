"""Batches of a cold start's records: prompts, answers and what seeds their masks.

B batch, L sequence."""

from collections.abc import Sequence
from typing import Any

import torch

from weft_rl.data.sft_examples import Example


class AnswerCollator:
    """Pads examples to their longest and names what seeds their masks; set `epoch` before a pass.

    The masks of (epoch, example) are the same in any batch, and after a resume. pad_in_answer:
    padding is seen, masked and trained like the answer it follows, as LLaDA's fine-tuning has it;
    else it is hidden from the model, and of the mean of the rates no part."""

    def __init__(self, pad_id: int, pad_in_answer: bool = False) -> None:
        self.pad_id, self.pad_in_answer, self.epoch = pad_id, pad_in_answer, 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns x0 (B, L) long, attention_mask (B, L) long, answer (B, L) bool, keys (B, 2)."""
        length = max(len(example.ids) for example in examples)
        x0 = torch.full((len(examples), length), self.pad_id)
        attention_mask, answer = torch.zeros_like(x0), torch.zeros_like(x0, dtype=torch.bool)
        for row, example in enumerate(examples):
            x0[row, : len(example.ids)] = torch.tensor(example.ids)
            end = length if self.pad_in_answer else len(example.ids)
            attention_mask[row, :end] = 1
            answer[row, example.prompt_length : end] = True
        keys = torch.tensor([[self.epoch, example.index] for example in examples])
        return {"x0": x0, "attention_mask": attention_mask, "answer": answer, "keys": keys}
