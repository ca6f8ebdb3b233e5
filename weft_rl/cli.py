"""What every command shares: exceptions become exit statuses and one line on standard error.

The module of a command has `main(argv: Sequence[str]) -> int` and ends with

    if __name__ == "__main__":
        sys.exit(execute("weft_rl.plot", main, sys.argv[1:]))
"""

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from weft_rl.errors import Interrupted, OutOfMemory, UserError
from weft_rl.io.terminal import guarded, one_line

_STDOUT = 1
_STOPPING = (signal.SIGTERM, signal.SIGUSR1)
FULL = (errno.ENOSPC, errno.EDQUOT)
# How the system calls these two, Rust's number of them, the words of datasets and of SQLite, and
# torch.save's of a file that is shorter than what was written to it
_FULL_TEXTS = (
    *(os.strerror(number) for number in FULL),
    *(f"(os error {number})" for number in FULL),
    *("Not enough disk space", "database or disk is full"),
    *("PytorchStreamWriter failed writing", "] . unexpected pos "),
)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def execute(command: str, body: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """The exit status of `body(argv)`: 2 the user's mistake, 3 interrupted but resumable.

    A place that the system refuses is the user's mistake.
    SIGTERM, SIGUSR1 (Slurm's), a full disk and a reader of standard output that goes away
    (`| head`, without a word) interrupt as Ctrl-C does. Too little memory is status 1, as the same
    command would meet it again. Anything else is a bug and keeps its traceback, status 1.
    Text that others wrote is escaped in everything that is printed meanwhile."""
    before = {each: signal.signal(each, signal.default_int_handler) for each in _STOPPING}
    try:
        with guarded():
            return _run(command, body, argv)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _run(command: str, body: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    try:
        status = body(argv)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _say(command, "interrupted; repeat the command to go on", 3)
    except Interrupted as stop:
        return _say(command, str(stop), 3)
    except BrokenPipeError:
        if not _reader_gone():
            raise
        _drop_output()
        return 3
    except Exception as error:
        full = full_disk(error)
        if full is not None:
            try:
                sys.stdout.flush()
            except OSError:
                _drop_output()
            place = getattr(full, "filename", None)
            where = f" ({place})" if place else ""
            return _say(command, f"the disk is full{where}; free space and repeat the command", 3)
        if isinstance(error, UserError):
            return _say(command, str(error), 2)
        if isinstance(error, OutOfMemory):
            return _say(command, str(error), 1)
        if isinstance(error, OSError) and error.errno in _FORBIDDEN and error.filename:
            cure = "choose another place, or get the right to it"
            return _say(command, f"{error.filename}: {error.strerror}; {cure}", 2)
        raise


def full_disk(error: BaseException) -> BaseException | None:
    """The error of a full disk among an exception, its causes and what it was raised in.

    torch, tokenizers, safetensors and others do not pass the system's number of an error on, but
    its text; None where there is no such error."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        numbered = isinstance(link, OSError) and link.errno in FULL
        # a file's name may hold the text too, and stands in a UserError
        told = not isinstance(link, UserError) and any(text in str(link) for text in _FULL_TEXTS)
        if numbered or told:
            return link
        seen.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def _say(command: str, message: str, status: int) -> int:
    with suppress(OSError):  # the log's disk may be the full one
        sys.stderr.write(f"{command}: {one_line(message)}\n")
        sys.stderr.flush()
    return status


def _reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Standard output to nowhere: Python flushes it on leaving, fails, and exits with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
