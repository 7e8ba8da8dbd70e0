"""Ctrl-C and SIGTERM during a sync: the first ends it in order, with every answer awaited and told."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Final

from crm_guard.clock import stop_waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """A signal ended the reading of the input."""


class Stop:
    """What signals ask for, and where they may strike: elsewhere they are only noted, so that no row is lost.

    Python runs a signal handler after a call, at the begin of a function and in loops: between a test of an
    attribute and the next statement there is no room for one.

    Attributes:
        by: The first signal that came, None if none did.
        interrupted: Whether it was Ctrl-C.
        may_interrupt: Whether the main thread is where a `KeyboardInterrupt` does no harm.
    """

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self.interrupted = False
        self.may_interrupt = False
        self._is_waiting = False

    def waiting(self, waits: bool) -> None:
        """Note whether the main thread waits for input: after a signal it would go on to wait.

        Raises:
            KeyboardInterrupt: Ctrl-C came before.
            Stopped: Another signal did.
        """
        self._is_waiting = waits
        if waits:
            self.check()

    def check(self) -> None:
        """Raise if a signal came. Called where no row is in hand.

        Raises:
            KeyboardInterrupt: It was Ctrl-C.
            Stopped: It was another.
        """
        if self.interrupted:
            self.may_interrupt = True  # what is under way is awaited now, until the next Ctrl-C
            raise KeyboardInterrupt
        if self.by is not None:
            raise Stopped

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler)
        """End the run.

        Raises:
            KeyboardInterrupt: It is Ctrl-C. The first ends a writer in order, the second at once.
            Stopped: It is another signal, and the main thread waits for input.
        """
        self.by = self.by or signal.Signals(number)
        self.interrupted = self.by is signal.SIGINT
        if number == signal.SIGINT and self.may_interrupt:
            raise KeyboardInterrupt
        if self._is_waiting:
            self._is_waiting = False
            self.check()
        stop_waiting()


@contextlib.contextmanager
def handled(stop: Stop) -> Iterator[None]:
    """Have signals end the run in order. One that the process ignores (`nohup`) stays ignored."""
    before = {}
    for name in _ENDING:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop.handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
