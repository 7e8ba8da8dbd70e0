"""What was found in a pasted text: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crm_guard.remediation import ApprovalCase

MOST_ANSWERS: Final = 1000
"""How many are explained at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the text around an answer tells of its call; None for what it does not tell.

    Attributes:
        status: HTTP status.
        method: HTTP method, upper case.
        path: Path or URL.
        retry_after: `Retry-After`, in seconds.
    """

    status: int | None = None
    method: str | None = None
    path: str | None = None
    retry_after: float | None = None

    def over(self, other: Facts) -> Facts:
        """Return these facts, completed by those of `other`."""
        return Facts(
            status=other.status if self.status is None else self.status,
            method=self.method or other.method,
            path=self.path or other.path,
            retry_after=other.retry_after if self.retry_after is None else self.retry_after,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """One answer of CRM, as far as the text holds it.

    Attributes:
        body: The body, as JSON; empty if the text has none.
        form: What it was read as, in a few words: `a Python repr in a log line`.
        facts: What the text tells of the call.
        request: Body of the request, if the text holds it.
        rows: Whether the body holds the rows of a read, in which nothing is a result.
        doubtful: Whether it may be such rows just as well as results.
        cut: Whether the text ends before the answer does.
        vague: Whether the last item has no details because they are not in the text.
        bare: Whether the text has a code and nothing else.
        case: The approval case that the text names.
        notes: More to say of what was understood.
    """

    body: bytes = b""
    form: str = "a JSON body"
    facts: Facts = field(default_factory=Facts)
    request: str | None = None
    rows: bool = False
    doubtful: bool = False
    cut: bool = False
    vague: bool = False
    bare: bool = False
    case: ApprovalCase | None = None
    notes: tuple[str, ...] = ()

    def with_facts(self, facts: Facts) -> Pasted:
        """Return the answer with facts that hold unless it has its own."""
        return replace(self, facts=self.facts.over(facts))
