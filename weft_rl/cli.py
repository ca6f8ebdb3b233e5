"""Command entry point: turns exceptions into exit statuses and one-line errors.

The module of a command has `main(argv: Sequence[str]) -> int` and ends with

    if __name__ == "__main__":
        sys.exit(execute("weft_rl.plot", main, sys.argv[1:]))
"""

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from weft_rl.errors import Interrupted, OutOfMemory, UserError
from weft_rl.io.terminal import guarded, one_line

_STDOUT = 1
_STOPPING = (signal.SIGTERM, signal.SIGUSR1)
FULL = (errno.ENOSPC, errno.EDQUOT)
# Full-disk messages of the system, Rust, datasets, SQLite and torch.save.
_FULL_TEXTS = (
    *(os.strerror(number) for number in FULL),
    *(f"(os error {number})" for number in FULL),
    *("Not enough disk space", "database or disk is full"),
    *("PytorchStreamWriter failed writing", "] . unexpected pos "),
)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def execute(command: str, body: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run `body(argv)` and return the exit status: 0, 2 (user error) or 3 (interrupted, resumable).

    Permission errors are user errors. SIGTERM, SIGUSR1 (Slurm), a full disk and a closed standard
    output (`| head`) interrupt like Ctrl-C. Out of memory gives status 1, because a retry would
    fail again. Other exceptions are bugs: traceback and status 1. Control characters in printed
    text are escaped."""
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
    except (KeyboardInterrupt, Interrupted) as stop:
        _flush()
        return _say(command, str(stop) or "interrupted; repeat the command to resume", 3)
    except BrokenPipeError:
        poll = select.poll()
        poll.register(_STDOUT, 0)
        if not any(event & select.POLLERR for _, event in poll.poll(0)):
            raise  # standard output still has a reader
        _drop_output()
        return 3
    except Exception as error:
        message = full_disk(error)
        if message:
            _flush()
            return _say(command, f"{message}; free space and repeat the command", 3)
        if isinstance(error, UserError | OutOfMemory):
            return _say(command, str(error), 2 if isinstance(error, UserError) else 1)
        if isinstance(error, OSError) and error.errno in _FORBIDDEN and error.filename:
            fix = "choose another path, or fix its permissions"
            return _say(command, f"{error.filename}: {error.strerror}; {fix}", 2)
        raise


def full_disk(error: BaseException) -> str:
    """Return the message for a full disk in an exception chain, or ""; libraries may drop errno."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        # a UserError may quote a file name that contains the text
        texts = () if isinstance(link, UserError) else _FULL_TEXTS
        if getattr(link, "errno", None) in FULL or any(text in str(link) for text in texts):
            place = getattr(link, "filename", None)
            return f"the disk is full{f' ({place})' if place else ''}"
        seen.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return ""


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _say(command: str, message: str, status: int) -> int:
    with suppress(OSError):  # the log may be on the full disk
        sys.stderr.write(f"{command}: {one_line(message)}\n")
        sys.stderr.flush()
    return status


def _drop_output() -> None:
    """Redirect standard output to /dev/null: the flush at exit would fail with status 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn OSError on writing `out=` into UserError, except for a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(
            f"out={path}: cannot be written ({error.strerror}); choose another out"
        ) from error


def require_extra(package: str, asked: str) -> None:
    """Raise UserError naming the option `asked` (key=value) unless `package` is installed."""
    if find_spec(package) is None:
        raise UserError(
            f"{asked}: {package} is not installed; run pip install 'weft-rl[{package}]', "
            "or leave it out"
        )
