"""A progress bar drawn by `rich`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crm_guard._bulk.bar_text import GAP, bar_words, fitting, room_for_bar, stderr_width

if TYPE_CHECKING:
    from rich.console import RenderableType

    from crm_guard.row_results import WriteCounts


class RichBar:
    """A bar on stderr, redrawn by whoever calls it: there is no thread. Used by one thread.

    Args:
        total: How many rows there are, None if that is not known.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False, width=stderr_width())
        self._live: Live | None = None
        self._is_closed = False

    def __call__(self, counts: WriteCounts) -> None:
        """Show the counts."""
        if self._is_closed:
            return
        self._console.width = stderr_width()  # it may have been changed
        line = self._line(counts)
        if self._live is None:
            self._live = Live(
                line, console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(line, refresh=True)

    def close(self) -> None:
        """Leave the most recent line standing. Idempotent."""
        self._is_closed = True
        if self._live is not None:
            self._live.stop()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # a writer that nobody closed must not leave the cursor hidden
            self.close()

    def _line(self, counts: WriteCounts) -> RenderableType:
        width = self._console.width - 1  # a full line wraps on some terminals
        words = bar_words(counts, self._total)
        shown = fitting(words, width)
        text, room = Text(shown, no_wrap=True, overflow="crop"), room_for_bar(shown, width)
        if not self._total or not room:
            return text
        grid = Table.grid(padding=(0, len(GAP), 0, 0))
        grid.add_row(ProgressBar(total=self._total, completed=counts.final, width=room), text)
        return grid
