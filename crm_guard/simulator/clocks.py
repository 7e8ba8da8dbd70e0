"""A clock that runs, and that can be moved forward."""

from __future__ import annotations

import threading
import time


class RunningClock:
    """`time.monotonic`, and whatever :meth:`advance` added. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the current instant, in seconds."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let `seconds`, 0 or more, pass at once."""
        with self._mutex:
            self._ahead += seconds
