"""Progress lines for logs, without a terminal."""

import sys
import time
from datetime import timedelta

EVERY_S = 30.0  # between lines of slow work


class LogLines:
    """Prints a line every 10% and at least every 30 seconds."""

    def __init__(self, label: str, done: float = 0.0) -> None:
        """done: fraction already complete."""
        self.label, self.tenths, self.printed = label, int(10 * done), time.monotonic()

    def update(self, done: float, text: str) -> None:
        """Print the text if a line is due. done: the fraction that is complete."""
        now, tenths = time.monotonic(), int(10 * done + 1e-9)
        if tenths > self.tenths or now - self.printed >= EVERY_S:
            self.tenths, self.printed = max(tenths, self.tenths), now
            sys.stdout.write(f"{self.label}: {text}\n")
            sys.stdout.flush()


def time_left(seconds: float, done: float, remaining: float) -> str:
    """Extrapolate the remaining time, like `0:00:12`; `?` without progress."""
    return str(timedelta(seconds=round(seconds * remaining / done))) if done else "?"
