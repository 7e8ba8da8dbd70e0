"""A progress bar on stderr, with what is installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from crm_guard._base.imports import first_import

if TYPE_CHECKING:
    from crm_guard.row_results import WriteCounts


class Bar(Protocol):
    """A bar."""

    def __call__(self, counts: WriteCounts) -> None:
        """Show the counts."""
        ...

    def close(self) -> None:
        """End the bar; its last line stays. Idempotent."""
        ...


def open_bar(total: int | None = None) -> Bar | None:
    """Return a bar on stderr; None where that is no terminal, or neither `rich` nor `tqdm` is installed.

    Prints nothing before it is called with counts.

    Args:
        total: How many rows there are, None if that is not known.
    """
    if not _is_terminal():
        return None
    with first_import:  # optional dependencies
        try:
            from crm_guard._bulk.rich_bar import RichBar  # noqa: PLC0415
        except ImportError:
            pass
        else:
            return RichBar(total)
        try:
            from crm_guard._bulk.tqdm_bar import TqdmBar  # noqa: PLC0415
        except ImportError:
            return None
        return TqdmBar(total)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is no stderr, or it was closed
        return False
