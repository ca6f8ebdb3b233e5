"""KV cache: keys and values of positions outside the window of a forward pass.

N cached rows, B batch, W window positions, H heads, L sequence, d head width."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Cache:
    """Storage of keys and values, and the part that one forward pass reads and writes.

    positions=None: complete sequences fill the cache. Otherwise the batch is a window of some rows,
    whose keys and values overwrite the cached ones. Keys are cached after rotation."""

    keys: Tensor  # (layers, N, H, L, d), written in place
    values: Tensor  # (layers, N, H, L, d)
    rows: Tensor | None  # (B,) long, cached rows of this batch; None: all, in order
    positions: Tensor | None  # (B, W) long, positions of the batch's tokens

    def exchange(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values, (B, H, L, d) each.

        keys, values: the layer's new ones, (B, H, W, d), or (B, H, L, d) of complete sequences."""
        return self._write(self.keys[layer], keys), self._write(self.values[layer], values)

    def _write(self, cached: Tensor, new: Tensor) -> Tensor:
        if self.positions is None:
            cached.copy_(new)
            return new
        # overwriting is safe: each forward pass of a window recomputes its positions
        rows = cached if self.rows is None else cached[self.rows]
        index = self.positions[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3])
        return rows.scatter_(2, index, new.to(cached.dtype))
