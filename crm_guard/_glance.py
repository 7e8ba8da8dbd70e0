"""The first look at a call: cheap, and the last one for all that has nothing to do with locks."""

from __future__ import annotations

from typing import Final

READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# One rare byte string that every guarded code ends with: the only thing that an ordinary answer is searched for.
MARK: Final = b'ED"'


def marked(body: bytes) -> bool:
    """Tell whether a body may hold a guarded code."""
    # From the end, as that looks for the mark's first byte; its last, a quote, is every few bytes of any JSON.
    return body.rfind(MARK) >= 0
