"""The messages that processes publish to each other through Redis, parsed with distrust."""

from __future__ import annotations

import json
from typing import Final, NamedTuple, NoReturn

MAX_SECONDS: Final = 1e9
"""Seconds: no instant farther ahead is ever sent to Redis, or accepted from it."""
_MAX_LENGTH: Final = 100_000
"""Bytes. Our own message about a batch of 500 records has about 30,000."""


class Message(NamedTuple):
    """What a process published.

    Attributes:
        process: Who published it.
        kind: `locked`, `free`, `release` (of a probe) or `slot` (released); others may follow.
        keys: Records; for `slot` the origin.
        due_in: Seconds until the probe is due, 0 or more.
    """

    process: str
    kind: str
    keys: list[str]
    due_in: float


def read_message(data: str | bytes) -> Message | None:
    """Parse a message; return None if it is not one of ours, whatever it is."""
    if len(data) > _MAX_LENGTH:
        return None
    try:
        fields = json.loads(data, parse_constant=_refuse)
        by, kind, keys, due = fields["by"], fields["kind"], fields["keys"], fields.get("due", 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = [by, kind, *keys] if isinstance(keys, list) else [None]
    if type(due) not in (int, float) or not all(isinstance(text, str) for text in texts):
        return None
    return Message(by, kind, keys, min(max(due, 0), MAX_SECONDS * 1000) / 1000)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are not JSON
