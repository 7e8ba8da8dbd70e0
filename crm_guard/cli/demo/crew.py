"""Runs the jobs in a thread pool: one thread per job, all through one guard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import requests

from crm_guard.cli.demo.results import Result
from crm_guard.mounting import mount_guard
from crm_guard.report import get_report
from crm_guard.simulator import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.adapter import GuardAdapter
    from crm_guard.cli.demo.board import Row, Rows
    from crm_guard.cli.demo.plan import Job, Step
    from crm_guard.events import GuardEvent
    from crm_guard.report import GuardReport
    from crm_guard.settings import GuardSettings
    from crm_guard.simulator import Simulator

_FEWEST_THREADS: Final = 10
_MOST_THREADS: Final = 32
_JOBS_PER_THREAD: Final = 3
READ_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.05
_current_row: ContextVar[Row] = ContextVar("current_row")


class Crew:
    """Executes a plan with a thread pool.

    Args:
        crm: The simulator to call.
        settings: Settings of the guard.
    """

    def __init__(self, crm: Simulator, settings: GuardSettings) -> None:
        self.crm = crm
        self._settings = settings

    def work(self, jobs: tuple[Job, ...], rows: Rows, on_finished: Callable[[Row], None]) -> tuple[Result, ...]:
        """Run all jobs.

        Args:
            jobs: The plan.
            rows: Updated as the jobs proceed.
            on_finished: Called with the row of each finished job, in the calling thread.

        Returns:
            One result per job, in the order of the plan.
        """
        threads = min(_MOST_THREADS, max(_FEWEST_THREADS, len(jobs) // _JOBS_PER_THREAD))
        guard = self._mount(threads)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="crm-guard-demo")
        futures = {pool.submit(self._do, job, rows.of(job), guard): job for job in jobs}
        try:
            for future in as_completed(futures):
                on_finished(rows.of(futures[future]))
            return tuple(future.result() for future in futures)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            while running := [future for future in futures if not future.done()]:
                guard.stop_waiting()  # after Ctrl-C: ends current waits only, hence the loop
                wait(running, _POLL_SECONDS)
            guard.close()

    def _mount(self, threads: int) -> GuardAdapter:
        return mount_guard(
            requests.Session(), self.crm.url, settings=self._settings, hooks=[_update_row], pool_maxsize=threads
        )

    def _do(self, job: Job, row: Row, guard: GuardAdapter) -> Result:
        _current_row.set(row)
        begin_checks(self.crm, job)
        row.start()
        result = self._call(job, row, guard)
        row.finish(result)
        return result

    def _call(self, job: Job, row: Row, guard: GuardAdapter) -> Result:
        """Make the job's calls through a session of its own: threads share only the guard."""
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
        """Make one call; return its response or exception, and the error if it is other than a block."""
        url = f"{self.crm.url}/crm/v8/{step.path}"
        try:
            response = session.request(step.method, url, timeout=READ_SECONDS, **step.arguments)
        except requests.RequestException as failure:
            return failure, None if get_report(failure).blocked else f"{type(failure).__name__}: {failure}"
        return response, None if response.ok else f"status {response.status_code}"


def begin_checks(crm: Simulator, job: Job) -> None:
    """Start Zia's image check on some of the job's records."""
    for record_id, seconds in job.locks.items():
        ending = job.endings.get(record_id)
        next_state = ending.state if ending else State.APPROVED
        crm.set_state(record_id, State.ZIA_VISION_VALIDATION, locked_for=seconds, then=next_state)


def _update_row(event: GuardEvent) -> None:
    """Pass an event to the current job's row: hooks run in the calling thread, so the context names the job."""
    _current_row.get().note(event)
