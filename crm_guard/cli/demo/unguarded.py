"""The demo's day without the guard: the same jobs and locks, each time in a simulated CRM of its own.

Three programs run beside the guarded one: one sends each call once, a loop repeats a call while its answer has the
word RECORD_LOCKED, and another loop repeats it for NOT_APPROVED, too. What became of the records is read from the
counts of their simulators.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import requests

from crm_guard.cli.demo.crew import READ_SECONDS, begin_checks
from crm_guard.cli.demo.plan import Planner
from crm_guard.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from crm_guard.cli.demo.plan import Job, Step
    from crm_guard.simulator import EngineOptions

_MOST_SENDS: Final = 5
_PAUSE: Final = 2.0
_MOST_THREADS: Final = 32
_THREADS: Final = "crm-guard-demo-unguarded"


class Habit(NamedTuple):
    """How a program without the guard sends its calls.

    Attributes:
        name: Its key in the JSON document.
        title: What it does, for people.
        words: It takes an answer with one of them for a refusal.
        sends: How often it sends a refused call, all of its records each time, before it gives up.
    """

    name: str
    title: str
    words: tuple[bytes, ...]
    sends: int


HABITS: Final = (
    Habit("single_sends", "Each call once", (b"RECORD_LOCKED", b"NOT_APPROVED"), 1),
    Habit("loop_on_locks", "Loop on RECORD_LOCKED", (b"RECORD_LOCKED",), _MOST_SENDS),
    Habit("loop_on_refusals", "Loop on both codes", (b"RECORD_LOCKED", b"NOT_APPROVED"), _MOST_SENDS),
)


class Unguarded(NamedTuple):
    """What became of the day without the guard, by the simulator's counts.

    Attributes:
        habit: How the calls were sent.
        records: How many records were to be written.
        not_written: How many of them were written less often than wanted.
        unnoticed: How many of these are in a call that was answered with a status below 400.
        extra: How often each record was written that was written more often than wanted.
        calls: Requests that the simulator answered.
        records_sent: Records in these calls: one that is sent twice counts twice.
        gave_up: How many jobs ended with a call that was refused as often as it was sent.
        seconds: Duration.
    """

    habit: Habit
    records: int
    not_written: int
    unnoticed: int
    extra: tuple[int, ...]
    calls: int
    records_sent: int
    gave_up: int
    seconds: float

    def line(self) -> str:
        """Return what happened, in one line."""
        missing = f"{self.not_written} of {self.records} records not written"
        if self.habit.sends == 1:
            told = f"{missing}, {self.unnoticed} answered with 2xx" if self.not_written else missing
        else:
            told = f"{missing}, {self._repeated()}" if self.not_written else self._repeated()
            told += f"; {_jobs(self.gave_up)} gave up"
        return f"{self.habit.title + ':':<23}{told}"

    def _repeated(self) -> str:
        some = "1 record" if len(self.extra) == 1 else f"{len(self.extra) or 'no'} records"
        if not self.extra:
            return f"{some} written too often"
        fewest, most = min(self.extra), max(self.extra)
        return f"{some} written {most if fewest == most else f'{fewest} to {most}'} times"

    def document(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        return {
            "most_sends": self.habit.sends,
            "records": self.records,
            "not_written": self.not_written,
            "not_written_unnoticed": self.unnoticed,
            "written_too_often": len(self.extra),
            "most_writes": max(self.extra, default=0),
            "calls": self.calls,
            "records_sent": self.records_sent,
            "jobs_gave_up": self.gave_up,
            "seconds": round(self.seconds, 3),
        }


class _End(NamedTuple):
    """How a job ended.

    Attributes:
        ok: Whether the status of its last answer is below 400.
        refused: Whether its last answer is a refusal that the program knows.
    """

    ok: bool
    refused: bool


class Twins:
    """Runs the day once per habit, in threads of its own, while it is entered.

    Args:
        seed: Of the plan.
        records: Number of single-record jobs.
        speed: Divisor of durations.
        options: Of the simulators.
    """

    def __init__(self, *, seed: int, records: int, speed: float, options: EngineOptions) -> None:
        self._days = [_Day(habit, seed, records, speed, options) for habit in HABITS]
        self._pool = ThreadPoolExecutor(len(HABITS), thread_name_prefix=_THREADS)

    def __enter__(self) -> Self:
        self._futures = [self._pool.submit(day.run) for day in self._days]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for day in self._days:
            day.stopping.set()
        self._pool.shutdown()

    def results(self) -> tuple[Unguarded, ...]:
        """Wait until every day has ended, and return what became of them, in the order of `HABITS`."""
        return tuple(future.result() for future in self._futures)


class _Day:
    """The day by one habit."""

    def __init__(self, habit: Habit, seed: int, records: int, speed: float, options: EngineOptions) -> None:
        self._habit = habit
        self._seed = seed
        self._records = records
        self._speed = speed
        self._options = options
        self.stopping = threading.Event()

    def run(self) -> Unguarded:
        """Run the day, and count."""
        with Simulator(**self._options) as crm:
            jobs = Planner(crm, random.Random(self._seed), self._speed).plan(self._records)
            started = time.monotonic()
            with ThreadPoolExecutor(min(_MOST_THREADS, len(jobs)), thread_name_prefix=_THREADS) as pool:
                ends = list(pool.map(lambda job: self._do(crm, job), jobs))
            return _counted(self._habit, crm, list(zip(jobs, ends, strict=True)), time.monotonic() - started)

    def _do(self, crm: Simulator, job: Job) -> _End:
        """Make the job's calls; one that fails ends it, as far as the program can tell."""
        begin_checks(crm, job)
        end = _End(ok=True, refused=False)
        with requests.Session() as session:
            session.trust_env = False  # the simulator is not behind a proxy
            for step in job.steps:
                end = self._send(session, crm.url, step)
                if not end.ok or end.refused:
                    break
        return end

    def _send(self, session: requests.Session, url: str, step: Step) -> _End:
        end = _End(ok=False, refused=False)
        for number in range(self._habit.sends):
            if number and self.stopping.wait(_PAUSE / self._speed):
                break
            try:
                response = session.request(
                    step.method, f"{url}/crm/v8/{step.path}", timeout=READ_SECONDS, **step.arguments
                )
            except requests.RequestException:
                return _End(ok=False, refused=False)
            end = _End(response.ok, any(word in response.content for word in self._habit.words))
            if not end.refused:
                break
        return end


def _counted(habit: Habit, crm: Simulator, ends: Sequence[tuple[Job, _End]], seconds: float) -> Unguarded:
    wanted = {record_id: times for job, _ in ends for record_id, times in job.writes.items()}
    writes = Counter(crm.write_counts)
    missing = {record_id for record_id, times in wanted.items() if writes[record_id] < times}
    return Unguarded(
        habit=habit,
        records=sum(times > 0 for times in wanted.values()),
        not_written=len(missing),
        unnoticed=sum(len(missing.intersection(job.ids)) for job, end in ends if end.ok),
        extra=tuple(times for record_id, times in writes.items() if times > wanted.get(record_id, 0)),
        calls=crm.answered,
        records_sent=sum(len(call.record_ids) for call in crm.calls),
        gave_up=sum(end.refused for _, end in ends),
        seconds=seconds,
    )


def heading(speed: float) -> str:
    """Return what the lines tell."""
    return (
        "Without the guard: the same jobs and locks, measured in this run, each time in a CRM of its own. A loop "
        "sends a whole call again while its answer has that word: "
        f"{_MOST_SENDS} sends at most, {_PAUSE / speed:.2g} s apart."
    )


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number or 'no'} jobs"
