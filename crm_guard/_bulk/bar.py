"""A progress bar on stderr, with what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crm_guard.row_results import WriteCounts


class Bar(Protocol):
    """A bar."""

    def __call__(self, counts: WriteCounts) -> None:
        """Show the counts."""
        ...

    def close(self) -> None:
        """End the bar."""
        ...


def open_bar() -> Bar | None:
    """Return a bar on stderr; None where that is no terminal, or no library for it is installed."""
    return None
