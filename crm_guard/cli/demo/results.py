"""How a job of the demo ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crm_guard.cli.demo.plan import Job
    from crm_guard.report import GuardReport, RecordOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a job ended.

    Attributes:
        job: The job.
        reports: The guard's report of each call that was made.
        error: What failed the job other than a block, or None.
        content: The body of the last response, or None if there was none.
    """

    job: Job
    reports: tuple[GuardReport, ...] = ()
    error: str | None = None
    content: bytes | None = None

    @property
    def blocked(self) -> tuple[RecordOutcome, ...]:
        """The outcomes of the records that stayed blocked, over all calls."""
        return tuple(outcome for report in self.reports for outcome in report.blocked)

    @property
    def attempts(self) -> int:
        """Sends of all calls."""
        return sum(report.attempts for report in self.reports)

    @property
    def waited(self) -> float:
        """Seconds waited in all calls."""
        return sum(report.waited for report in self.reports)

    @property
    def calls(self) -> int:
        """Requests made, diagnosis included."""
        return sum(report.credits_spent for report in self.reports)
