"""The first look at a call: cheap, and the last one for all that has nothing to do with locks."""

from __future__ import annotations

from typing import Final

READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# One rare byte string that every guarded code ends with: the only thing that an ordinary answer is searched for.
MARK: Final = b'ED"'
_RAREST: Final = b"D"


def marked(body: bytes) -> bool:
    """Tell whether a body may hold a guarded code."""
    # A single byte is found at memory speed, and most answers do without a D. The mark is looked for from the end,
    # as that search goes by its first byte: its last, a quote, comes every few bytes in any JSON.
    return _RAREST in body and body.rfind(MARK) >= 0
