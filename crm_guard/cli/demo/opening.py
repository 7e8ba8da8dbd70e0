"""What the demo says before the day begins, to a reader who has not heard of these locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from crm_guard.cli.demo.plan import Job


def show_opening(jobs: Sequence[Job], console: Console, *, seed: int) -> None:
    """Print what the jobs are, which locks they meet, and what the guard does."""
    console.print(Text(_title(jobs, seed), "bold"))
    for paragraph in _paragraphs(jobs):
        console.print(Text(f"\n{paragraph}"))
    console.print()


def _title(jobs: Sequence[Job], seed: int) -> str:
    records = sum(len(job.ids) for job in jobs)
    return f"{len(jobs)} jobs on {records} records, in threads, against a simulated Zoho CRM (seed {seed})"


def _paragraphs(jobs: Sequence[Job]) -> tuple[str, str]:
    seconds = [seconds for job in jobs for seconds in job.locks.values()]
    blocked = sum(len(job.endings) for job in jobs)
    locks = (
        "Zia Vision, Zoho's image check, locks a record for some seconds when it gets an image. A call that meets "
        f"this lock is refused with RECORD_LOCKED. {len(seconds)} records have such a lock when their job begins, "
        f"for {min(seconds):.2g} to {max(seconds):.2g} s: the guard waits, and sends again only what was refused."
    )
    blocks = (
        f"{blocked} records are blocked until a person acts, most of them with NOT_APPROVED: no waiting helps, so "
        "the guard does not wait, and says what to do."
    )
    return locks, blocks
