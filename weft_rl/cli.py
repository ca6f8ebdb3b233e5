"""Command entry point: turns exceptions into exit statuses and one line on standard error.

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
from importlib.util import find_spec

from weft_rl.errors import Interrupted, OutOfMemory, UserError
from weft_rl.io.terminal import guarded, one_line

_STDOUT = 1
_STOPPING = (signal.SIGTERM, signal.SIGUSR1)
FULL = (errno.ENOSPC, errno.EDQUOT)
# Messages of libraries for a full disk: of the system, Rust, datasets, SQLite and torch.save
_FULL_TEXTS = (
    *(os.strerror(number) for number in FULL),
    *(f"(os error {number})" for number in FULL),
    *("Not enough disk space", "database or disk is full"),
    *("PytorchStreamWriter failed writing", "] . unexpected pos "),
)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def execute(command: str, body: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run `body(argv)`; returns the exit status: 0, 2 (user error) or 3 (interrupted, resumable).

    Permission errors are user errors. SIGTERM, SIGUSR1 (Slurm), a full disk and a closed standard
    output (`| head`) interrupt like Ctrl-C. Out of memory is status 1: the same command would fail
    again. Any other exception is a bug: traceback and status 1. Control characters in printed text
    are escaped."""
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
        return _say(command, "interrupted; repeat the command to resume", 3)
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
            cure = "choose another path, or fix its permissions"
            return _say(command, f"{error.filename}: {error.strerror}; {cure}", 2)
        raise


def full_disk(error: BaseException) -> BaseException | None:
    """The full-disk error in the chain of an exception, or None.

    torch, tokenizers and safetensors raise errors with the system's message but without errno."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        numbered = isinstance(link, OSError) and link.errno in FULL
        # a UserError may quote a file name that contains the text
        has_text = not isinstance(link, UserError) and any(
            text in str(link) for text in _FULL_TEXTS
        )
        if numbered or has_text:
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
    """Whether standard output is a closed pipe."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Redirect standard output to /dev/null: Python's flush at exit would fail with status 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)


def require_extra(package: str, asked: str) -> None:
    """Raise UserError unless an optional package is installed; does not import it.

    asked: the option that needs it, as `key=value`."""
    if find_spec(package) is None:
        raise UserError(
            f"{asked}: {package} is not installed; run pip install 'weft-rl[{package}]', "
            "or leave it out"
        )
