"""The model as a function of completions: adds prompts, padding, guidance and caches.

N rows in total, A of them in a forward, P prompt and T completion tokens, L = P + T, K positions
of a block, W of a cached forward's window, M masked positions, V vocabulary."""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weft_rl.config.sampler import SamplerConfig
from weft_rl.models.kv_cache import Cache
from weft_rl.sampler.unmasking import Ints, MaskedPositions


class ModelRunner:
    """Logits at masked positions, for rows in the slots of a batch.

    full_forward runs full canvases and fills the cache, first_forward does so while all is masked,
    cached_forward runs only what the cache lacks. Raises ValueError for a missing cache."""

    def __init__(
        self,
        model: nn.Module,
        prompt_ids: Tensor,
        visible: Tensor,
        mask_id: int,
        config: SamplerConfig,
        slots: int,
    ) -> None:
        self.model, self.prompt_ids, self.config = model, prompt_ids, config
        if config.compile:
            # on a GPU, run a step as a CUDA graph where the compiler supports it
            mode = "reduce-overhead" if prompt_ids.is_cuda else None
            self.model = torch.compile(model, dynamic=False, mode=mode)
        self.prompts = [prompt_ids]
        if config.cfg_scale:
            # also masks the padding, which is not attended to
            self.prompts.append(torch.full_like(prompt_ids, mask_id))
        self.visible = nn.functional.pad(visible, (0, config.gen_length), value=1)  # (N, L)
        self.padding = (visible == 0).sum(dim=1).cpu().numpy()  # (N,)
        both = torch.cat([prompt_ids, visible], dim=1).cpu().numpy()
        # identical prompts share a number
        self.prompt_number = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)  # (N,)
        # PEFT's forward hides the model's arguments behind **kwargs
        unwrap: Any = getattr(model, "get_base_model", lambda: model)
        self.accepted = signature(type(unwrap()).forward).parameters
        self.cache: Cache | None = None
        if config.cache != "none":
            self.cache = self._empty_cache(unwrap(), slots)

    def _empty_cache(self, model: nn.Module, slots: int) -> Cache:
        make: Callable[[int, int], Cache] | None = getattr(model, "empty_cache", None)
        if make is None or "cache" not in self.accepted:
            raise ValueError(
                f"sampler.cache={self.config.cache}: {type(model).__name__} has no KV cache; use "
                "cache=none"
            )
        return make(len(self.prompts) * slots, self.visible.shape[1])

    def full_forward(self, rows: Ints, completions: Ints, where: MaskedPositions) -> Tensor:
        """Return guided logits (M, V) at masked positions from a forward over the full canvas.

        rows (A,): the rows of all slots, in order; completions (A, T) of these rows."""
        # drop columns that are padding in all rows; a cache needs fixed positions
        fixed = self.cache is not None or self.config.compile
        lead = 0 if fixed or not len(rows) else int(self.padding[rows].min())
        row_index, canvases = self._canvases(rows, completions)
        position = where.position + self.prompt_ids.shape[1] - lead
        cache = self._cache_arguments(None, None)
        return self._guided(
            [canvas[:, lead:] for canvas in canvases],
            self._attention_mask(rows, row_index, lead),
            self._to_device(where.index),
            self._to_device(position),
            cache and _first_rows(cache, len(self.prompts) * len(rows)),
        )

    def first_forward(self, rows: Ints, completions: Ints, where: MaskedPositions) -> Tensor:
        """Return full_forward's result for fully masked rows; runs each distinct prompt once."""
        numbers = self.prompt_number[rows]
        _, first, copies = np.unique(numbers, return_index=True, return_inverse=True)
        if self.config.compile or len(first) == len(rows):
            return self.full_forward(rows, completions, where)
        position = where.position.reshape(len(rows), -1)[first]  # each prompt's full first block
        index = np.arange(len(first)).repeat(position.shape[1])
        logits = self.full_forward(
            rows[first], completions[first], MaskedPositions(index, position.ravel())
        )
        self._move_cache(copies, len(first))
        return logits.unflatten(0, position.shape)[self._to_device(copies)].flatten(0, 1)

    def cached_forward(
        self,
        rows: Ints,
        slots: Ints | None,
        completions: Ints,
        where: MaskedPositions,
        starts: Ints,
    ) -> Tensor:
        """Return guided logits (M, V) at masked positions from a forward over a window.

        rows (A,); slots (A,) of these rows in the cache, None for all in order; completions (A, T);
        starts (A,): start of each row's block."""
        length, width = completions.shape[1], self.config.block_length
        if self.config.cache == "prefix":
            width = length - int(starts.min())
        # rows in a later block pad their window with copies of the last position
        positions = np.minimum(starts[:, None] + np.arange(width), length - 1)
        window = self._to_device(positions + self.prompt_ids.shape[1])  # (A, W)
        row_index, canvases = self._canvases(rows, completions)
        return self._guided(
            [canvas.gather(1, window) for canvas in canvases],
            self._attention_mask(rows, row_index, 0),
            self._to_device(where.index),
            self._to_device(where.position - starts[where.index]),
            self._cache_arguments(slots, window),
        )

    def keep_slots(self, slots: Ints) -> None:
        """Move the cache of these slots (A,), ascending, to the front and drop the others."""
        if self.cache is not None:
            copies = len(self.prompts)
            self._move_cache(slots, self.cache.keys.shape[1] // copies)
            self.cache = _first_rows(self.cache, copies * len(slots))

    def _move_cache(self, slots: Ints, stride: int) -> None:
        """Copy the cache of these slots (A,), with unconditional rows, to the front in order."""
        if self.cache is not None:
            index = self._cache_rows(slots, stride)
            for storage in (self.cache.keys, self.cache.values):
                for layer in storage:  # by layer: a second full cache may not fit in memory
                    layer[: len(index)] = layer[index]

    def _cache_rows(self, slots: Ints, stride: int) -> Tensor:
        """Return the cache rows of these slots; the unconditional ones are offset by `stride`."""
        rows = [slots + i * stride for i in range(len(self.prompts))]
        return self._to_device(np.concatenate(rows))

    def _to_device(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self.prompt_ids.device, non_blocking=True)

    def _canvases(self, rows: Ints, completions: Ints) -> tuple[Tensor, list[Tensor]]:
        """Return row indices, and canvases (A, L) with and, if guided, without prompt."""
        index, completion = self._to_device(rows), self._to_device(completions)
        return index, [torch.cat([prompt[index], completion], dim=1) for prompt in self.prompts]

    def _attention_mask(self, rows: Ints, row_index: Tensor, lead: int) -> Tensor | None:
        """Return the mask (A, L); None without padding, where models have a faster path."""
        padding = self.padding if self.config.compile else self.padding[rows]
        return self.visible[row_index, lead:] if padding.any() else None

    def _cache_arguments(self, slots: Ints | None, window: Tensor | None) -> Cache | None:
        if self.cache is None:
            return None
        copies = len(self.prompts)
        index = None
        if slots is not None:
            index = self._cache_rows(slots, self.cache.keys.shape[1] // copies)
        positions = None if window is None else window.repeat(copies, 1)
        return replace(self.cache, rows=index, positions=positions)

    def _guided(
        self,
        canvases: list[Tensor],
        seen: Tensor | None,
        index: Tensor,
        position: Tensor,
        cache: Cache | None,
    ) -> Tensor:
        """Return logits (M, V), guided by u + (w + 1)(c - u). Source: LLaDA's sampler."""
        count = len(index)
        if self.config.compile:
            # pad to the maximum number of masked positions; the extra results are ignored
            spare = (0, len(canvases[0]) * self.config.block_length - count)
            index, position = nn.functional.pad(index, spare), nn.functional.pad(position, spare)
        if len(canvases) == 1:
            return self._forward(canvases[0], seen, index, position, cache)[:count]
        seen = None if seen is None else seen.repeat(2, 1)
        index = torch.cat([index, index + len(canvases[0])])
        logits = self._forward(torch.cat(canvases), seen, index, position.repeat(2), cache)
        c, u = (part[:count] for part in logits.float().chunk(2))
        return u + (self.config.cfg_scale + 1) * (c - u)

    def _forward(
        self,
        canvas: Tensor,
        seen: Tensor | None,
        index: Tensor,
        position: Tensor,
        cache: Cache | None,
    ) -> Tensor:
        options: dict[str, Any] = {}
        if cache is not None:
            options["cache"] = cache
        elif seen is not None and "position_ids" in self.accepted:
            # learned positions are absolute: padding must not shift them
            options["position_ids"] = (seen.cumsum(dim=1) - 1).clamp(min=0)
        # transformers models also have `logits_to_keep`, but only for full columns
        flat = "logits_fn" in self.accepted
        if flat:
            seen = None if seen is None else seen.bool()
            options["logits_to_keep"] = (index, position)
        output = self.model(input_ids=canvas, attention_mask=seen, **options)
        logits = getattr(output, "logits", None)
        if logits is None:
            raise ValueError(
                f"{type(self.model).__name__} returned no logits: sampling needs a masked "
                "language model, for instance one from AutoModelForMaskedLM"
            )
        return logits if flat else logits[index, position]


def _first_rows(cache: Cache, size: int) -> Cache:
    return replace(cache, keys=cache.keys[:, :size], values=cache.values[:, :size])
