"""What a bar says: how far a writer is, in a few words, as many as fit."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crm_guard.row_results import WriteCounts

_USUAL_WIDTH: Final = 80
GAP: Final = "  "
"""Between words, and between a bar and these."""
_WIDEST: Final = 30
_NARROWEST: Final = 8


def bar_words(counts: WriteCounts, total: int | None) -> list[str]:
    """Return what to say, the most important first.

    Args:
        counts: How far the writer is.
        total: How many rows there are, None if that is not known.
    """
    known = (
        (counts.blocked, "blocked"),
        (counts.failed, "failed"),
        (counts.uncertain, "uncertain"),
        (counts.waiting, "waiting"),
    )
    written = f"{counts.written:,}" if total is None else f"{counts.written:,}/{total:,}"
    words = [f"{written} written", *(f"{count:,} {name}" for count, name in known if count)]
    rate = counts.final / counts.elapsed if counts.elapsed > 0 else 0.0
    left = max(0, (total or 0) - counts.final)
    words.append(f"{_duration(math.ceil(left / rate))} left" if left and rate else _duration(counts.elapsed))
    words.append(f"{rate:,.0f} rows/s")
    return words


def fitting(words: Sequence[str], width: int) -> str:
    """Return as many of the words, from the first on, as fit into `width` columns."""
    text = words[0]
    for word in words[1:]:
        if len(text) + len(GAP) + len(word) > width:
            break
        text += GAP + word
    return text[: max(0, width)]


def room_for_bar(text: str, width: int) -> int:
    """Return the columns that are left for a bar beside a text, 0 if these are too few."""
    room = min(_WIDEST, width - len(GAP) - len(text))
    return room if room >= _NARROWEST else 0


def stderr_width() -> int:
    """Return the columns of the terminal on stderr."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError, AttributeError):
        return _USUAL_WIDTH


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
