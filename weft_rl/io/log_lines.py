"""Progress in a log: a plain line now and then where there is no terminal."""

import sys
import time
from datetime import timedelta

EVERY_S = 30.0  # between lines, where tenths are further apart
_TENTHS = 10


class LogLines:
    """Prints how far some work is: at each tenth of it, and else every 30 seconds at most."""

    def __init__(self, label: str, begun: float = 0.0) -> None:
        """begun: the share that was done before."""
        self.label, self.tenths, self.printed = label, int(_TENTHS * begun), time.monotonic()

    def told(self, share: float, text: str) -> None:
        """Take the share of the work that is done, and print the text if it is time for it."""
        now, tenths = time.monotonic(), int(_TENTHS * share + 1e-9)
        if tenths > self.tenths or now - self.printed >= EVERY_S:
            self.tenths, self.printed = max(tenths, self.tenths), now
            sys.stdout.write(f"{self.label}: {text}\n")
            sys.stdout.flush()


def time_left(seconds: float, done: float, left: float) -> str:
    """`0:00:12`, if the rest goes on as what is done did; `?` before anything is."""
    return str(timedelta(seconds=round(seconds * left / done))) if done else "?"
