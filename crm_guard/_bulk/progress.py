"""Shows how far a writer is: by a function of the caller's, or by a bar."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Final

from crm_guard._bulk.bar import open_bar
from crm_guard._transport.event_log import complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard._bulk.bar import Bar
    from crm_guard.row_results import WriteCounts

INTERVAL: Final = 0.1
"""Seconds, at least, between two calls of the caller's function."""


class Progress:
    """Calls a function with the counts, ten times a second at most, and once more at the end. Used by one thread.

    Args:
        show: The function, True for a bar, or None.
        now: Returns the instant.
        rows: The input; a bar tells the time that is left if this has a length.
    """

    def __init__(
        self,
        show: Callable[[WriteCounts], object] | bool | None,
        now: Callable[[], float],
        rows: object = None,
    ) -> None:
        self._now = now
        self._bar: Bar | None = open_bar(_length(rows)) if show is True else None
        self._show = self._bar or (show if callable(show) else None)
        self._next = float("-inf")

    @property
    def interval(self) -> float | None:
        """Seconds after which to call again, None if never."""
        return INTERVAL if self._show is not None else None

    def update(self, counts: Callable[[], WriteCounts]) -> None:
        """Call the function, unless that was done just now."""
        if self._show is not None and (now := self._now()) >= self._next:
            self._next = now + INTERVAL
            self._tell(counts())

    def close(self, counts: Callable[[], WriteCounts]) -> None:
        """Call the function a last time, and end the bar. Idempotent."""
        if self._show is not None:
            self._tell(counts())
            self._show = None
        if self._bar is not None:
            self._bar.close()

    def _tell(self, counts: WriteCounts) -> None:
        try:
            if self._show is not None:
                self._show(counts)
        except Exception as exc:  # noqa: BLE001 (a display must not cost a result)
            complain("the progress function failed: %s", type(exc).__name__)


def _length(rows: object) -> int | None:
    try:
        return len(rows) if isinstance(rows, Sized) else None
    except Exception:  # noqa: BLE001 (a display must not cost a result)
        return None
