"""A progress bar drawn by `tqdm`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from crm_guard._bulk.bar_text import GAP, bar_words, fitting, room_for_bar, stderr_width

if TYPE_CHECKING:
    from crm_guard.row_results import WriteCounts


class _Quiet(tqdm):  # type: ignore[type-arg] # generic in the stubs only
    """A `tqdm` without a thread that watches it."""

    monitor_interval = 0


class TqdmBar:
    """A bar on stderr, redrawn by whoever calls it. Used by one thread.

    Args:
        total: How many rows there are, None if that is not known.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._bar: _Quiet | None = None
        self._is_dumb = os.environ.get("TERM") in {"dumb", "unknown"}  # knows no carriage return, perhaps
        self._is_closed = False

    def __call__(self, counts: WriteCounts) -> None:
        """Show the counts; on a dumb terminal only the last ones."""
        if self._is_closed:
            return
        if self._bar is None:
            self._bar = _Quiet(total=self._total, file=sys.stderr, leave=True, delay=float("inf"))
        self._bar.n = counts.final
        self._bar.ncols, self._bar.bar_format = self._layout(counts)
        if not self._is_dumb:
            self._bar.refresh()

    def close(self) -> None:
        """Leave the most recent line standing. Idempotent."""
        if self._bar is not None and not self._is_closed:
            self._bar.delay = 0
            self._bar.close()
        self._is_closed = True

    def _layout(self, counts: WriteCounts) -> tuple[int, str]:
        width = stderr_width() - 1  # a full line wraps on some terminals
        text = fitting(bar_words(counts, self._total), width)
        room = room_for_bar(text, width)
        if not self._total or not room:
            return width, text
        return room + len(GAP) + len(text), "{bar}" + GAP + text
