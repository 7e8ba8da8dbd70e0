"""Why a writer sends nothing any more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crm_guard.outcomes import CallError, GiveUpReason


@dataclass(frozen=True, slots=True)
class End:
    """Why nothing is sent any more.

    Attributes:
        reason: Why, where the guard itself decided it.
        error: What CRM, or the way to it, answered.
        source: The response or the exception, as the driver gave it.
    """

    reason: GiveUpReason | None = None
    error: CallError | None = None
    source: Any = None
