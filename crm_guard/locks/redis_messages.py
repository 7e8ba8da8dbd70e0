"""The messages that processes publish to each other through Redis, parsed with distrust."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_SECONDS: Final = 1e9
"""Seconds: nothing farther ahead is ever sent to Redis, or accepted from it."""
_MAX_CALLS: Final = 1e6
"""Calls: no more are believed to need a record, whatever others say."""
_MAX_LENGTH: Final = 100_000
"""Bytes. Our own message about a batch of 500 records has about 30,000."""


class Message(NamedTuple):
    """What a process published.

    Attributes:
        process: Who published it.
        kind: `asked`, `locked`, `free`, `release` (of a question without an answer), `need` or `slot`; others may
            follow.
        keys: Records; for `slot` the call that got one.
        calls: For each record, how many calls of the process need it; empty if it does not say.
        after: Seconds for which CRM asked not to ask again.
    """

    process: str
    kind: str
    keys: list[str]
    calls: list[float]
    after: float


def make_message(
    process: str, kind: str, keys: Collection[str], calls: Collection[float] = (), after: float = 0.0
) -> str:
    """Return a message to publish; see :class:`Message`."""
    rounded = [round(number, 4) for number in calls]
    return json.dumps({"by": process, "kind": kind, "keys": list(keys), "calls": rounded, "after": after})


def read_message(data: str | bytes) -> Message | None:
    """Parse a message; return None if it is not one of ours, whatever it is."""
    if len(data) > _MAX_LENGTH:
        return None
    try:
        fields = json.loads(data, parse_constant=_refuse)
        by, kind, keys = fields["by"], fields["kind"], fields["keys"]
        calls, after = fields.get("calls", []), fields.get("after", 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not (isinstance(keys, list) and isinstance(calls, list) and len(calls) in {0, len(keys)}):
        return None
    if not all(isinstance(text, str) for text in (by, kind, *keys)) or not all(map(_is_number, (after, *calls))):
        return None
    return Message(by, kind, keys, [_within(_MAX_CALLS, number) for number in calls], _within(MAX_SECONDS, after))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _within(most: float, value: float) -> float:
    return float(min(max(value, 0.0), most))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are not JSON
