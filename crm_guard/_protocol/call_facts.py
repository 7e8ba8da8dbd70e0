"""What stays the same during one call. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crm_guard.remediation import RECORD_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crm_guard._protocol.call_events import Teller
    from crm_guard._protocol.record_outcomes import Judge
    from crm_guard._protocol.request_records import CrmRequest
    from crm_guard.settings import GuardSettings


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays the same during one call.

    Attributes:
        request: The request's records.
        origin: Scheme, host and port of its URL.
        settings: The policy.
        judge: Judges items; knows no approval states.
        teller: Makes events.
        replayable: Whether the body can be sent again.
    """

    request: CrmRequest
    origin: str
    settings: GuardSettings
    judge: Judge
    teller: Teller
    replayable: bool

    def key(self, record_id: str | None) -> str:
        """Return the key of a record in the lock registry."""
        return f"{self.origin}|{record_id}"

    def keys(self, ids: Iterable[str | None]) -> frozenset[str]:
        """Return the keys of records, as far as these have ids to share."""
        return frozenset(self.key(name) for name in ids if name and RECORD_ID.fullmatch(name))
