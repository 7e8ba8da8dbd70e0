"""Whether an answer may hold items: the cheap tests, which every CRM call passes through."""

from __future__ import annotations

from typing import Final

from crm_guard._base.codes import CLIENT_ERROR

READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
READ_ITEMS_FROM: Final = CLIENT_ERROR
"""A successful read holds field values, which may look like items: below this status nothing in it is one."""
# One rare byte string that every guarded code ends with: the only thing that an ordinary answer is searched for.
MARK: Final = b'ED"'
_RAREST: Final = b"D"


def may_hold_items(status: int, *, reads: bool) -> bool:
    """Return whether an answer may hold items."""
    return not reads or status >= READ_ITEMS_FROM


def marked(body: bytes) -> bool:
    """Return whether a body may hold a guarded code."""
    # A single byte is found at memory speed, and most answers do without a D. The mark is looked for from the end,
    # as that search goes by its first byte: its last, a quote, comes every few bytes in any JSON.
    return _RAREST in body and body.rfind(MARK) >= 0
