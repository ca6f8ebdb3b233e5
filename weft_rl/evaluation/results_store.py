"""Result rows written by several processes, kept across interruptions.

A folder holds one JSONL file per process. Process r of n handles every n-th id from the r-th on,
without the ids that any file has. The number of processes may change when a run resumes."""

import json
import shutil
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from weft_rl.distributed import wait_until
from weft_rl.runs.jsonl import append_line, read_lines


class ShardedResults:
    """Result rows by id, sharded over processes, in a folder of `parent` called `name`.

    key: everything that determines the rows. Rows with another key are not reused."""

    def __init__(
        self, parent: Path, name: str, key: Mapping[str, Any], rank: int = 0, world: int = 1
    ) -> None:
        text = json.dumps(key, sort_keys=True, default=str)
        self.parent, self.name, self.rank, self.world = parent, name, rank, world
        self.folder = parent / f".{name}-{blake2b(text.encode(), digest_size=8).hexdigest()}"
        self._file = self.folder / f"part-{rank}-of-{world}.jsonl"

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of all processes by id; truncated lines are skipped."""
        paths = sorted(self.folder.glob("part-*.jsonl"))
        return {str(row["id"]): row for path in paths for row in read_lines(path) if "id" in row}

    def pending(self, ids: Sequence[str], batch: int = 1) -> list[str]:
        """Return the ids that this process must still compute, in batches of `batch`.

        Repeats incomplete batches: their composition must not depend on interruptions."""
        done, shard = self.rows(), ids[self.rank :: self.world]
        batches = [shard[start : start + batch] for start in range(0, len(shard), batch)]
        return [name for each in batches if not done.keys() >= {*each} for name in each]

    def open(self) -> None:
        """Create the folder and terminate a truncated last line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists() and not self._file.read_bytes().endswith(b"\n"):
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n")

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row, which has an `id`."""
        append_line(self._file, row)

    def gather(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return all rows in id order once complete. Raises Interrupted if the launcher exits."""
        wait_until(lambda: len(self.rows()) >= len(ids))
        rows = self.rows()
        return [rows[name] for name in ids]

    def wait_until_merged(self) -> None:
        """Wait until rank 0 has removed the folder. Raises Interrupted if the launcher exits."""
        wait_until(lambda: not self.folder.exists())

    def remove(self) -> None:
        """Remove the rows of all keys under this name."""
        for folder in self.parent.glob(f".{self.name}-*"):
            shutil.rmtree(folder, ignore_errors=True)
