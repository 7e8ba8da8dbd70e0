"""The calls that a simulated CRM answered, as lines below a failed test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crm_guard.simulator import Call

_MOST: Final = 30
"""Lines: the latest calls are those that matter."""


def call_lines(calls: Sequence[Call], answered: int) -> str:
    """Return a line for each of the latest calls: instant, method, path, status, refused records, fault.

    There is no query, header or body in it: they may hold tokens and personal data.

    Args:
        calls: The log.
        answered: How many calls there were in all.
    """
    shown = calls[-_MOST:]
    earlier = answered - len(shown)
    return "\n".join([*([f"... {earlier} calls before"] if earlier else []), *map(_line, shown)])


def _line(call: Call) -> str:
    status = str(call.status) if call.status else "no answer"
    refused = f", refused: {', '.join(call.refused_ids)}" if call.refused_ids else ""
    fault = f", fault: {call.fault}" if call.fault else ""
    return f"{call.at:8.1f} s  {call.method} {call.path} -> {status}{refused}{fault}"
