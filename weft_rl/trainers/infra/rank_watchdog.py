"""Processes that tell each other they live: one that is gone, or stands still, is named."""

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed import PrefixStore, distributed_c10d
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# Beats that are missed before a process counts as gone: one may be late on a busy machine.
_BEATS = 5
# Longer ones would tell late of a death whatever time a step may take.
_LONGEST_BEAT_S = 10.0
_STANDING = 3  # the exit status of what can be resumed


class RankWatchdog(TrainerCallback):
    """A thread that says on the processes' common store where this one is, and reads the others.

    It works the same over gloo and nccl: it needs no collective. When no step has ended for
    `timeout` seconds, every process says in a line where it stands, names those that have not given
    a sign, and ends with status 3. `silent` names them to a process that lost its connection."""

    def __init__(self, rank: int, world: int, timeout: float) -> None:
        self.rank, self.world, self.timeout = rank, world, timeout
        self.every = min(timeout / (2 * _BEATS), _LONGEST_BEAT_S)
        self.main = threading.get_ident()
        self.over = threading.Event()
        self.moved, self.step = time.monotonic(), 0
        # of each other process: what it said last, and when that changed
        self.heard = {other: ("|nothing", time.monotonic()) for other in range(world)}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin to beat."""
        # a connection of the thread's own; the stubs lack the method
        store = distributed_c10d._get_default_store().clone()  # ty: ignore[missing-attribute]
        self.store = PrefixStore("weft_rl/heartbeat", store)
        self.moved, self.step = time.monotonic(), state.global_step
        self.store.set(str(self.rank), f"0|{self._place()}")
        threading.Thread(target=self._beat, daemon=True).start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note that this process moves."""
        self.moved, self.step = time.monotonic(), state.global_step

    def silent(self) -> list[str]:
        """Who gives no sign of life, watched for as long as that takes to tell."""
        self.over.wait(self._gone_after + 2 * self.every)
        return self._silent()

    @property
    def _gone_after(self) -> float:
        return _BEATS * self.every

    def _silent(self) -> list[str]:
        now = time.monotonic()
        gone = {
            other: word.partition("|")[2]
            for other, (word, when) in self.heard.items()
            if other != self.rank and now - when > self._gone_after
        }
        return [
            f"process {other} of {self.world} gives no sign of life (last: {last})"
            for other, last in gone.items()
        ]

    def _beat(self) -> None:
        beats = 0
        while not self.over.wait(self.every):
            beats += 1
            # without the process that keeps the store all are silent, that one among them
            with suppress(RuntimeError):
                self._exchange(f"{beats}|{self._place()}")
            if time.monotonic() - self.moved > self.timeout:
                self._stand_still()

    def _exchange(self, word: str) -> None:
        self.store.set(str(self.rank), word)
        for other, (last, _) in self.heard.items():
            if other != self.rank and self.store.check([str(other)]):
                new = self.store.get(str(other)).decode()
                if new != last:
                    self.heard[other] = (new, time.monotonic())

    def _place(self) -> str:
        """This process, its step, and the line that its main thread is at outside of torch."""
        who = f"pid {os.getpid()} on {socket.gethostname()}, after step {self.step}"
        frame: FrameType | None = sys._current_frames().get(self.main)
        while frame is not None and f"{os.sep}torch{os.sep}" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is None:
            return who
        file = Path(*Path(frame.f_code.co_filename).parts[-2:])
        return f"{who}, at {file}:{frame.f_lineno} in {frame.f_code.co_name}"

    def _stand_still(self) -> None:
        lines = [f"no step has ended for {self.timeout:.0f} s", *self._silent()]
        lines.append(f"process {self.rank} of {self.world} stands still: {self._place()}")
        sys.stderr.write(f"weft_rl.pipeline: {'; '.join(lines)}; repeat the command to go on\n")
        sys.stderr.flush()
        os._exit(_STANDING)  # the main thread may never come back to be told
