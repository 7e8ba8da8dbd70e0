"""The threads that do the work: each job in one of them, all through one guard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import requests

from crm_guard.inspection import get_report
from crm_guard.mounting import mount_guard
from crm_guard.simulator import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.adapter import GuardAdapter
    from crm_guard.cli.demo.board import Row, Rows
    from crm_guard.cli.demo.plan import Job, Step
    from crm_guard.events import GuardEvent
    from crm_guard.report import GuardReport, RecordOutcome
    from crm_guard.settings import GuardSettings
    from crm_guard.simulator import Simulator

_FEWEST_THREADS: Final = 10
_MOST_THREADS: Final = 32
_JOBS_PER_THREAD: Final = 3
_READ_SECONDS: Final = 30
_MOMENT: Final = 0.05
_current_row: ContextVar[Row] = ContextVar("current_row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a job.

    Attributes:
        job: The job.
        reports: The guard's word on each call that was made.
        error: What ended the job other than a block; None where nothing did.
        content: The body of the last answer, None where there was none.
    """

    job: Job
    reports: tuple[GuardReport, ...] = ()
    error: str | None = None
    content: bytes | None = None

    @property
    def blocked(self) -> tuple[RecordOutcome, ...]:
        """The outcomes of the records that stayed blocked."""
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


class Crew:
    """Works through a plan with a pool of threads.

    Args:
        crm: Where the work is done.
        settings: For the guard.
    """

    def __init__(self, crm: Simulator, settings: GuardSettings) -> None:
        self.crm = crm
        self._settings = settings

    def work(self, jobs: tuple[Job, ...], rows: Rows, told: Callable[[Row], None]) -> tuple[Result, ...]:
        """Do all jobs.

        Args:
            jobs: The plan.
            rows: Told of everything that happens.
            told: Called with the row of each finished job, in this thread.

        Returns:
            One result per job, in the order of the plan.
        """
        threads = min(_MOST_THREADS, max(_FEWEST_THREADS, len(jobs) // _JOBS_PER_THREAD))
        guard = self._mount(threads)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="crm-guard-demo")
        futures = {pool.submit(self._do, job, rows.of(job), guard): job for job in jobs}
        try:
            for future in as_completed(futures):
                told(rows.of(futures[future]))
            return tuple(future.result() for future in futures)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            while running := [future for future in futures if not future.done()]:
                guard.stop_waiting()  # after Ctrl-C: ends the waits under way, but not those that begin after it
                wait(running, _MOMENT)
            guard.close()

    def _mount(self, threads: int) -> GuardAdapter:
        return mount_guard(
            requests.Session(), self.crm.url, settings=self._settings, hooks=[_take_note], pool_maxsize=threads
        )

    def _do(self, job: Job, row: Row, guard: GuardAdapter) -> Result:
        _current_row.set(row)
        self._lock(job)
        row.start()
        result = self._call(job, row, guard)
        row.finish(result)
        return result

    def _lock(self, job: Job) -> None:
        """Have Zia begin to check the images of some of the job's records."""
        for record_id, seconds in job.locks.items():
            ending = job.endings.get(record_id)
            then = ending.state if ending else State.APPROVED
            self.crm.set_state(record_id, State.ZIA_VISION_VALIDATION, locked_for=seconds, then=then)

    def _call(self, job: Job, row: Row, guard: GuardAdapter) -> Result:
        """Make the job's calls through a session of its own: only the guard is shared between threads."""
        session = requests.Session()
        session.trust_env = False  # the simulator is not behind a proxy
        session.mount(f"{self.crm.url}/", guard)
        reports: list[GuardReport] = []
        response: requests.Response | Exception | None = None
        error = None
        for step in job.steps:
            response, error = self._send(session, step)
            reports.append(get_report(response))
            row.advance(reports[-1])
            if error or isinstance(response, Exception):
                break
        content = response.content if isinstance(response, requests.Response) else None
        return Result(job=job, reports=tuple(reports), error=error, content=content)

    def _send(self, session: requests.Session, step: Step) -> tuple[requests.Response | Exception, str | None]:
        """Make one call; return what came of it, and what went wrong other than a block."""
        url = f"{self.crm.url}/crm/v8/{step.path}"
        try:
            response = session.request(step.method, url, timeout=_READ_SECONDS, **step.arguments)
        except requests.RequestException as failure:
            return failure, None if get_report(failure).blocked else f"{type(failure).__name__}: {failure}"
        return response, None if response.ok else f"status {response.status_code}"


def _take_note(event: GuardEvent) -> None:
    """Be the guard's hook: it is called in the thread of the call, so the context tells whose call it is."""
    _current_row.get().note(event)
