"""Why a call is refused."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why a call is refused."""

    ZIA = "zia_vision_processing"
    RECORD_LOCKING = "record_locking"
    MERGE = "merge"
    NOT_APPROVED = "NOT_APPROVED"
    NOT_REVIEWED = "NOT_REVIEWED"

    @property
    def code(self) -> str:
        """The `code` of the refusal."""
        return self.value if self in (Cause.NOT_APPROVED, Cause.NOT_REVIEWED) else "RECORD_LOCKED"
