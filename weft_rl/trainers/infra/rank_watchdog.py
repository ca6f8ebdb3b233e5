"""Heartbeats that name a dead or stalled process; torchrun and ddp_timeout do not."""

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
from transformers import TrainerCallback, TrainerState

# Missed beats after which a process counts as dead: one may be late on a busy machine.
_BEATS = 5
# A longer interval would report a death late if steps are slow.
_MAX_INTERVAL_S = 10.0
_RESUMABLE = 3  # exit status of an interrupted run


class RankWatchdog(TrainerCallback):
    """Thread that publishes this process' position in the shared store and reads the others'.

    Uses no collectives, so it works with gloo and nccl. If no step ends for `timeout` seconds,
    every process prints its position, names silent processes and exits with status 3. `silent`
    names them after a lost connection."""

    def __init__(self, rank: int, world: int, timeout: float) -> None:
        self.rank, self.world, self.timeout = rank, world, timeout
        self.interval = min(timeout / (2 * _BEATS), _MAX_INTERVAL_S)
        self.main = threading.get_ident()
        self.over = threading.Event()
        self.moved, self.step = time.monotonic(), 0
        # of each other process: last message, and when it changed
        self.heard = {r: ("|nothing", time.monotonic()) for r in range(world) if r != rank}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start the thread."""
        # a separate connection for the thread; the stubs lack the method
        store = distributed_c10d._get_default_store().clone()  # ty: ignore[missing-attribute]
        self.store = PrefixStore("weft_rl/heartbeat", store)
        self.on_step_end(args, state, control)
        self.store.set(str(self.rank), f"0|{self._position()}")
        threading.Thread(target=self._run, daemon=True).start()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Record progress of this process."""
        self.moved, self.step = time.monotonic(), state.global_step

    def silent(self) -> list[str]:
        """Wait until missing heartbeats are certain; return the dead processes."""
        self.over.wait((_BEATS + 2) * self.interval)
        return self._silent()

    def _silent(self) -> list[str]:
        oldest = time.monotonic() - _BEATS * self.interval
        return [
            f"process {rank} of {self.world} gives no sign of life "
            f"(last: {message.partition('|')[2]})"
            for rank, (message, when) in self.heard.items()
            if when < oldest
        ]

    def _run(self) -> None:
        beats = 0
        while not self.over.wait(self.interval):
            beats += 1
            # if the store's process died, all others are silent too
            with suppress(RuntimeError):
                self._exchange(f"{beats}|{self._position()}")
            if time.monotonic() - self.moved > self.timeout:
                self._exit()

    def _exchange(self, message: str) -> None:
        self.store.set(str(self.rank), message)
        for rank, (last, _) in self.heard.items():
            if self.store.check([str(rank)]):
                new = self.store.get(str(rank)).decode()
                if new != last:
                    self.heard[rank] = (new, time.monotonic())

    def _position(self) -> str:
        """This process, its step, and its main thread's innermost line outside torch."""
        who = f"pid {os.getpid()} on {socket.gethostname()}, after step {self.step}"
        frame: FrameType | None = sys._current_frames().get(self.main)
        while frame is not None and f"{os.sep}torch{os.sep}" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is None:
            return who
        file = Path(*Path(frame.f_code.co_filename).parts[-2:])
        return f"{who}, at {file}:{frame.f_lineno} in {frame.f_code.co_name}"

    def _exit(self) -> None:
        lines = [f"no step has ended for {self.timeout:.0f} s", *self._silent()]
        lines.append(f"process {self.rank} of {self.world} makes no progress: {self._position()}")
        sys.stderr.write(f"weft_rl.pipeline: {'; '.join(lines)}; repeat the command to resume\n")
        sys.stderr.flush()
        os._exit(_RESUMABLE)  # the main thread may never return
