"""Rows that several processes write and an interrupted run keeps, one for each of a list of ids.

A folder holds one JSONL file per process. Process r of n does every n-th id from the r-th on, less
those that any file has already: none is done twice, and a run of another number of processes goes
on where the last one stopped."""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from weft_rl.errors import Interrupted
from weft_rl.runs.jsonl import append_line, read_lines

_POLL_S = 1.0  # short against a batch of completions


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are, as torchrun and its like say; alone: 0, 1."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class ShardedResults:
    """The rows so far of one task of work.

    parent, name: where its folder lies; key: everything that the rows depend on. Rows of another
    key are not taken up, and are removed when this work is through."""

    def __init__(
        self, parent: Path, name: str, key: Mapping[str, Any], rank: int = 0, world: int = 1
    ) -> None:
        text = json.dumps(key, sort_keys=True, default=str)
        self.parent, self.name, self.rank, self.world = parent, name, rank, world
        self.folder = parent / f".{name}-{blake2b(text.encode(), digest_size=8).hexdigest()}"

    def rows(self) -> dict[str, dict[str, Any]]:
        """What has been done, by id; a line that was torn by an interruption is not."""
        paths = sorted(self.folder.glob("part-*.jsonl"))
        return {str(row["id"]): row for path in paths for row in read_lines(path) if "id" in row}

    def left(self, ids: Sequence[str], part: int = 1) -> list[str]:
        """The ids that this process is still to do.

        part: so many are done together, and again when any of them is missing, so that what is in
        a batch does not depend on where an interruption fell."""
        done, own = self.rows(), ids[self.rank :: self.world]
        parts = [own[start : start + part] for start in range(0, len(own), part)]
        return [name for each in parts if not done.keys() >= {*each} for name in each]

    def begin(self) -> None:
        """Make the folder ready: the next row must not be glued to a torn one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._own()
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, which has its `id`."""
        append_line(self._own(), row)

    def collect(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """All rows in the order of the ids, once every process is through.

        Raises Interrupted when what started the processes has ended: no row would come any more."""
        parent = os.getppid()
        while len(rows := self.rows()) < len(ids):
            _wait_under(parent)
        return [rows[name] for name in ids]

    def wait(self) -> None:
        """Return once the first process has removed the folder, with everything in its place, or
        when it has done so already.

        Raises Interrupted when what started the processes has ended: nobody would remove it."""
        parent = os.getppid()
        while self.folder.exists():
            _wait_under(parent)

    def remove(self) -> None:
        """Remove the rows, and those of other keys under the same name."""
        for folder in self.parent.glob(f".{self.name}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _own(self) -> Path:
        return self.folder / f"part-{self.rank}-of-{self.world}.jsonl"


def _wait_under(parent: int) -> None:
    """Let some time pass, unless the process that started this one is gone."""
    if os.getppid() != parent:
        raise Interrupted("what started the processes has ended")
    time.sleep(_POLL_S)
