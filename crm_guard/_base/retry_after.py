"""The header `Retry-After`: CRM documents none, and it is honoured where a proxy or CRM sends one."""

from __future__ import annotations

from urllib3 import Retry
from urllib3.exceptions import InvalidHeader


def seconds_to_wait(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait, None where it is absent or unreadable."""
    if value is None:
        return None
    try:
        return float(Retry().parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError):
        return None
