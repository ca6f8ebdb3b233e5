"""Progress in a log, where there is no terminal."""

import sys
import time
from datetime import timedelta

EVERY_S = 30.0  # between lines of slow work


class LogLines:
    """Prints a line at each tenth of some work, and every 30 seconds in between."""

    def __init__(self, label: str, done: float = 0.0) -> None:
        """done: the fraction that is complete already."""
        self.label, self.tenths, self.printed = label, int(10 * done), time.monotonic()

    def update(self, done: float, text: str) -> None:
        """Print the text if it is time for a line. done: the fraction that is complete."""
        now, tenths = time.monotonic(), int(10 * done + 1e-9)
        if tenths > self.tenths or now - self.printed >= EVERY_S:
            self.tenths, self.printed = max(tenths, self.tenths), now
            sys.stdout.write(f"{self.label}: {text}\n")
            sys.stdout.flush()


def time_left(seconds: float, done: float, remaining: float) -> str:
    """Extrapolate the time left, like `0:00:12`; `?` before anything is done."""
    return str(timedelta(seconds=round(seconds * remaining / done))) if done else "?"
