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

from weft_rl.errors import Interrupted, OutOfMemory, UserError

_STDOUT = 1
_STOPPING = (signal.SIGTERM, signal.SIGUSR1)
FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def execute(command: str, body: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """The exit status of `body(argv)`: 2 the user's mistake, 3 interrupted but resumable.

    A place that the system refuses is the user's mistake.
    SIGTERM, SIGUSR1 (Slurm's), a full disk and a reader of standard output that goes away
    (`| head`, without a word) interrupt as Ctrl-C does. Too little memory is status 1, as the same
    command would meet it again. Anything else is a bug and keeps its traceback, status 1."""
    before = {each: signal.signal(each, signal.default_int_handler) for each in _STOPPING}
    try:
        status = body(argv)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _say(command, str(error), 2)
    except Interrupted as stop:
        return _say(command, str(stop), 3)
    except OutOfMemory as error:
        return _say(command, str(error), 1)
    except KeyboardInterrupt:
        return _say(command, "interrupted; repeat the command to go on", 3)
    except BrokenPipeError:
        if not _reader_gone():
            raise
        _drop_output()
        return 3
    except OSError as error:
        if error.errno in _FORBIDDEN and error.filename:
            cure = "choose another place, or get the right to it"
            return _say(command, f"{error.filename}: {error.strerror}; {cure}", 2)
        if error.errno not in FULL:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        where = f" ({error.filename})" if error.filename else ""
        return _say(command, f"the disk is full{where}; free space and repeat the command", 3)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _say(command: str, message: str, status: int) -> int:
    sys.stderr.write(f"{command}: {' '.join(message.split())}\n")
    return status


def _reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Standard output to nowhere: Python flushes it on leaving, fails, and exits with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
