"""The status and form of CRM's own answers so far, which a merged answer takes over. Pure.

The answers themselves are not kept: a call may be refused many times, and each refusal may be large.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from crm_guard._base.codes import ACCEPTED, CREATED, MULTI_STATUS, OK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.envelope import Envelope, Item

_WHOLE: Final = frozenset({OK, CREATED, ACCEPTED})
_PARTS: Final = _WHOLE | {MULTI_STATUS}


class Kind(enum.Enum):
    """How many of its records an answer applied."""

    ALL = enum.auto()
    SOME = enum.auto()
    NONE = enum.auto()


class Precedents:
    """How CRM answered one call, by how many of its records an answer applied. Used by one thread.

    Args:
        answer: The first answer.
        envelope: Its items.

    Attributes:
        first: HTTP status of the first answer.
        opening: Its envelope, without the items.
    """

    def __init__(self, answer: Answer[Any], envelope: Envelope) -> None:
        self.first = answer.status
        self.opening = envelope.emptied()
        self._forms: dict[Kind, Envelope] = {}
        self._statuses: dict[Kind, int] = {}
        self._record_status(answer)

    def add(self, answer: Answer[Any]) -> None:
        """Record a later answer. Safe to repeat."""
        envelope, opening = answer.envelope, self.opening
        if envelope is None or answer.failed:
            return
        self._record_status(answer)
        if envelope.key == opening.key and envelope.listed == opening.listed:
            self._forms[kind_of(envelope.items)] = envelope.emptied()

    def _record_status(self, answer: Answer[Any]) -> None:
        envelope = answer.envelope
        if envelope is None or answer.failed:
            return
        kind = kind_of(envelope.items)
        if _is_whole_status(answer.status, envelope, kind):
            self._statuses[kind] = answer.status

    def status(self, kind: Kind) -> int | None:
        """Return the HTTP status of the most recent answer of this kind to a whole call; None if there was none."""
        return self._statuses.get(kind)

    def form(self, kind: Kind) -> Envelope:
        """Return an envelope without items: of the most recent answer of this kind, or else of the first one."""
        return self._forms.get(kind, self.opening)


def kind_of(items: Sequence[Item]) -> Kind:
    """Return how many of `items` report something applied."""
    applied = sum(item.succeeded for item in items)
    return Kind.ALL if applied == len(items) else Kind.SOME if applied else Kind.NONE


def _is_whole_status(status: int, envelope: Envelope, kind: Kind) -> bool:
    """Return whether `status` is one that CRM gives to a call of this kind as a whole."""
    if kind is Kind.ALL and status == ACCEPTED:  # also that of a change of owners that succeeded in part
        return all(item.code == "SCHEDULED" for item in envelope.items)
    return status in (_WHOLE if kind is Kind.ALL else _PARTS) or kind is Kind.NONE
