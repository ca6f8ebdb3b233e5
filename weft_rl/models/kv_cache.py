"""Keys and values that a block of a completion attends to without computing them again.

N rows kept, B of a batch, W window positions, H heads, L sequence, d head width."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Cache:
    """What a model is to keep or to use in one forward: the storage, and which part of it.

    With positions=None the batch holds all whole sequences, in order, and their keys and values are
    kept. Otherwise it holds a window of some of them: its own keys and values replace those kept at
    its positions, and everything else is seen as it was kept. Keys are kept rotated, at the
    positions where they stand."""

    keys: Tensor  # (layers, N, H, L, d), written in place
    values: Tensor  # (layers, N, H, L, d)
    rows: Tensor | None  # (B,) long, the kept rows of this batch; None: all, in order
    positions: Tensor | None  # (B, W) long, where the batch's tokens stand

    def exchange(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values that a layer attends to, given its own: (B, H, L, d) each.

        keys, values (B, H, W, d), or (B, H, L, d) of whole sequences."""
        return (
            self._exchange(self.keys[layer], keys),
            self._exchange(self.values[layer], values),
        )

    def _exchange(self, kept: Tensor, own: Tensor) -> Tensor:
        if self.positions is None:
            kept.copy_(own)
            return own
        # a window is computed anew as long as it is a window: overwriting its slots loses nothing
        seen = kept if self.rows is None else kept[self.rows]
        index = self.positions[:, None, :, None].expand(-1, seen.shape[1], -1, seen.shape[3])
        return seen.scatter_(2, index, own.to(kept.dtype))
