"""The model as a function of completions: prompts, padding, guidance and caches put in.

N rows in all, A of them in a forward, P prompt and T completion tokens, L = P + T, K positions of
a block, W of a cache's window, M open positions, V vocabulary."""

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
    """Logits of open positions, for rows that sit in the slots of a batch.

    Whole canvases go through `everything`, which fills the cache if there is one, or through
    `beginning` while all is masked; `window` sends only what the cache does not hold. Raises
    ValueError for a model that cannot keep a cache."""

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
            # on a GPU a step is one CUDA graph, where the compiler can make it one
            mode = "reduce-overhead" if prompt_ids.is_cuda else None
            self.model = torch.compile(model, dynamic=False, mode=mode)
        # over the padding too: nothing sees it
        self.unconditional = torch.full_like(prompt_ids, mask_id)
        self.visible = nn.functional.pad(visible, (0, config.gen_length), value=1)  # (N, L)
        self.padding = (visible == 0).sum(dim=1).cpu().numpy()  # (N,)
        both = torch.cat([prompt_ids, visible], dim=1).cpu().numpy()
        # the same number for the same prompt
        self.prompt = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)  # (N,)
        # PEFT's own forward hides what the model accepts behind **kwargs
        unwrap: Any = getattr(model, "get_base_model", lambda: model)
        self.accepted = signature(type(unwrap()).forward).parameters
        self.copies = 2 if config.cfg_scale else 1
        self.cache: Cache | None = None
        if config.cache != "none":
            self.cache = self._empty_cache(unwrap(), slots)

    def _empty_cache(self, model: nn.Module, slots: int) -> Cache:
        make: Callable[[int, int], Cache] | None = getattr(model, "empty_cache", None)
        if make is None or "cache" not in self.accepted:
            raise ValueError(
                f"sampler.cache={self.config.cache}: {type(model).__name__} cannot keep keys and "
                "values; use cache=none"
            )
        return make(self.copies * slots, self.visible.shape[1])

    def everything(self, rows: Ints, completions: Ints, where: MaskedPositions) -> Tensor:
        """Guided logits (M, V) at open positions, from a forward over the whole canvas.

        rows (A,) of all slots, in order; completions (A, T) of these rows."""
        # columns that are padding in all of these rows; a cache keeps every row at one place
        fixed = self.cache is not None or self.config.compile
        lead = 0 if fixed or not len(rows) else int(self.padding[rows].min())
        own, canvas = self._canvas(rows, completions)
        position = where.position + self.prompt_ids.shape[1] - lead
        cache = self._kept(None, None)
        return self._guided(
            [part[:, lead:] for part in canvas],
            self._seen(rows, own, lead),
            self._to_device(where.index),
            self._to_device(position),
            cache and _first(cache, self.copies * len(rows)),
        )

    def beginning(self, rows: Ints, completions: Ints, where: MaskedPositions) -> Tensor:
        """What `everything` gives while these completions are all masks, each prompt sent once."""
        if self.config.compile:
            return self.everything(rows, completions, where)
        _, first, places = np.unique(self.prompt[rows], return_index=True, return_inverse=True)
        if len(first) == len(rows):
            return self.everything(rows, completions, where)
        position = where.position.reshape(len(rows), -1)[first]  # of each, the whole first block
        index = np.arange(len(first)).repeat(position.shape[1])
        logits = self.everything(
            rows[first], completions[first], MaskedPositions(index, position.ravel())
        )
        self._move(places, len(first))
        return logits.unflatten(0, position.shape)[self._to_device(places)].flatten(0, 1)

    def window(
        self, rows: Ints, slots: Ints | None, completions: Ints, where: MaskedPositions, start: Ints
    ) -> Tensor:
        """Guided logits (M, V) at open positions, from a forward over what is not kept.

        rows (A,); slots (A,) where their keys and values are kept, None for all slots in order;
        completions (A, T) of these rows; start (A,): where each row's block begins in it."""
        length, width = completions.shape[1], self.config.block_length
        if self.config.cache == "prefix":
            width = length - int(start.min())
        # a row that is further on ends its window with copies of the last position, all alike
        positions = np.minimum(start[:, None] + np.arange(width), length - 1)
        places = self._to_device(positions + self.prompt_ids.shape[1])  # (A, W)
        own, canvas = self._canvas(rows, completions)
        return self._guided(
            [part.gather(1, places) for part in canvas],
            self._seen(rows, own, 0),
            self._to_device(where.index),
            self._to_device(where.position - start[where.index]),
            self._kept(slots, places),
        )

    def keep(self, slots: Ints) -> None:
        """Move the cache of these slots (A,), ascending, to the front and forget the rest."""
        if self.cache is None:
            return
        self._move(slots, self.cache.keys.shape[1] // self.copies)
        self.cache = _first(self.cache, self.copies * len(slots))

    def _move(self, slots: Ints, number: int) -> None:
        """Write the cache of these slots (A,), of `number` in each copy, to the front in order."""
        if self.cache is None:
            return
        index = self._to_device(np.concatenate([slots + i * number for i in range(self.copies)]))
        for kept in (self.cache.keys, self.cache.values):
            for layer in kept:  # one at a time: a second copy of the whole cache may not fit
                layer[: len(index)] = layer[index]

    def _to_device(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self.prompt_ids.device, non_blocking=True)

    def _canvas(self, rows: Ints, completions: Ints) -> tuple[Tensor, list[Tensor]]:
        """The rows on the device, and their canvases (A, L) with and, if guided, without prompt."""
        own, completion = self._to_device(rows), self._to_device(completions)
        prompts = [self.prompt_ids, self.unconditional][: self.copies]
        return own, [torch.cat([prompt[own], completion], dim=1) for prompt in prompts]

    def _seen(self, rows: Ints, own: Tensor, lead: int) -> Tensor | None:
        """The attention mask (A, L), None without padding: models take a faster path then."""
        padding = self.padding if self.config.compile else self.padding[rows]
        return self.visible[own, lead:] if padding.any() else None

    def _kept(self, slots: Ints | None, places: Tensor | None) -> Cache | None:
        """The cache's part in a forward of all copies."""
        if self.cache is None:
            return None
        index = None
        if slots is not None:
            number = self.cache.keys.shape[1] // self.copies
            index = np.concatenate([slots + i * number for i in range(self.copies)])
            index = self._to_device(index)
        if places is not None:
            places = places.repeat(self.copies, 1)
        return replace(self.cache, rows=index, positions=places)

    def _guided(
        self,
        canvas: list[Tensor],
        seen: Tensor | None,
        index: Tensor,
        position: Tensor,
        cache: Cache | None,
    ) -> Tensor:
        """Logits (M, V) at (index, position). Source: LLaDA's sampler, u + (w + 1)(c - u)."""
        count = len(index)
        if self.config.compile:
            # as many as a batch can have open: what is added is computed and not used
            spare = (0, len(canvas[0]) * self.config.block_length - count)
            index, position = nn.functional.pad(index, spare), nn.functional.pad(position, spare)
        if self.copies == 1:
            return self._forward(canvas[0], seen, index, position, cache)[:count]
        seen = None if seen is None else seen.repeat(2, 1)
        index = torch.cat([index, index + len(canvas[0])])
        logits = self._forward(torch.cat(canvas), seen, index, position.repeat(2), cache)
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
        flat = "logit_rows" in self.accepted
        if flat:
            seen = None if seen is None else seen.bool()
            options |= {"logit_rows": index, "logit_positions": position}
        output = self.model(input_ids=canvas, attention_mask=seen, **options)
        logits = getattr(output, "logits", None)
        if logits is None:
            raise ValueError(
                f"{type(self.model).__name__} returned no logits: sampling needs a masked "
                "language model, for instance one from AutoModelForMaskedLM"
            )
        return logits if flat else logits[index, position]


def _first(cache: Cache, size: int) -> Cache:
    """The cache's first `size` rows, not copied."""
    return replace(cache, keys=cache.keys[:, :size], values=cache.values[:, :size])
