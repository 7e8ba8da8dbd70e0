"""Checks of the demo's result against the simulator's own counts, not against the guard's reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from crm_guard.cli.demo.plan import Job
    from crm_guard.cli.demo.results import Result
    from crm_guard.simulator import Call, Record

_NAMES_SHOWN: Final = 3


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        name: What must hold.
        held: Whether it holds.
        detail: How much was checked if it holds, else what was found.
    """

    name: str
    held: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What happened in a run.

    Attributes:
        results: How the jobs ended.
        seconds: Duration of the run.
        calls: The simulator's call log.
        writes: The simulator's count of writes per record.
        refusals: The simulator's count of refusals per record.
        records: The simulator's records at the end.
    """

    results: tuple[Result, ...]
    seconds: float
    calls: tuple[Call, ...]
    writes: Mapping[str, int]
    refusals: Mapping[str, int]
    records: Mapping[str, Record]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The plan."""
        return tuple(result.job for result in self.results)

    @property
    def wanted(self) -> dict[str, int]:
        """How often each record must be written."""
        return {record_id: times for job in self.jobs for record_id, times in job.writes.items()}

    @property
    def probes(self) -> int:
        """Number of calls that asked for approval states."""
        return sum(call.method == "GET" and "approval_state" in call.query for call in self.calls)


def check_day(day: Day) -> tuple[Check, ...]:
    """Return the result of every check."""
    return tuple(_checked(name, *look(day)) for name, look in _CHECKS.items())


def sent(day: Day) -> Counter[str]:
    """Return how often each record was sent in a write."""
    return Counter(record_id for call in day.calls if call.method != "GET" for record_id in call.record_ids)


def _checked(name: str, problems: Iterable[str], scope: str) -> Check:
    found = list(problems)
    shown = "; ".join(found[:_NAMES_SHOWN])
    more = f"; and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return Check(name, not found, shown + more if found else scope)


def _jobs_ended(day: Day) -> tuple[list[str], str]:
    problems = [f"{_name(result.job)}: {result.error}" for result in day.results if result.error]
    return problems, f"{len(day.results)} jobs"


def _written_once(day: Day) -> tuple[list[str], str]:
    wanted = {record_id: times for record_id, times in day.wanted.items() if times}
    problems = [_miscount(day, record_id, times) for record_id, times in wanted.items()]
    return list(filter(None, problems)), f"{len(wanted)} records, {sum(wanted.values())} writes"


def _blocked_untouched(day: Day) -> tuple[list[str], str]:
    still = [record_id for record_id, times in day.wanted.items() if not times]
    strangers = [record_id for record_id in day.writes if record_id not in day.wanted]
    problems = [_miscount(day, record_id, 0) for record_id in (*still, *strangers)]
    return list(filter(None, problems)), f"{sum(len(job.endings) for job in day.jobs)} records"


def _miscount(day: Day, record_id: str, wanted: int) -> str:
    found = day.writes.get(record_id, 0)
    return "" if found == wanted else f"record {record_id} was written {found} times instead of {wanted}"


def _locks_waited_out(day: Day) -> tuple[list[str], str]:
    problems = [
        f"record {outcome.record_id} is still locked ({report.reason})"
        for result in day.results
        for report in result.reports
        for outcome in report.blocked
        if outcome.retryable
    ]
    locked = [record_id for job in day.jobs for record_id in job.locks]
    met = sum(day.refusals[record_id] > 0 for record_id in locked)
    return problems, f"{len(locked)} locks, {met} met"


def _cases_recognised(day: Day) -> tuple[list[str], str]:
    problems: list[str] = []
    for result in day.results:
        found = {
            outcome.record_id or "without an id": _reading(outcome.case, outcome.approval_state)
            for outcome in result.blocked
            if not outcome.retryable
        }
        ends = result.job.endings
        wanted = {record_id: _reading(end.case, end.approval_state) for record_id, end in ends.items()}
        problems += [
            f"record {record_id} is {wanted.get(record_id, 'free')}, the guard says {found.get(record_id, 'free')}"
            for record_id in dict.fromkeys([*wanted, *found])
            if wanted.get(record_id) != found.get(record_id)
        ]
    return problems, f"{sum(len(job.endings) for job in day.jobs)} records"


def _reading(case: str | None, state: str | None) -> str:
    return f"{case or 'no case'} (state {state or 'not asked for'})"


def _nothing_repeated(day: Day) -> tuple[list[str], str]:
    counted = sent(day)
    problems = []
    for record_id, times in counted.items():
        due = day.writes.get(record_id, 0) + day.refusals.get(record_id, 0)
        if times != due:
            problems.append(f"record {record_id} was sent {times} times, of which {due} were necessary")
    again = sum(counted.values()) - len(counted)
    return problems, f"{sum(day.refusals.values())} refusals, {again} records resent"


def _one_answer_each(day: Day) -> tuple[list[str], str]:
    batches = [result for result in day.results if not result.job.single]
    problems = [
        f"{_name(result.job)}: the response does not have exactly one result per record"
        for result in batches
        if sorted(_named(result)) != sorted(result.job.ids)
    ]
    return problems, f"{len(batches)} batches"


def _named(result: Result) -> Sequence[str]:
    return [outcome.record_id or "" for report in result.reports for outcome in report.outcomes]


def _images_intact(day: Day) -> tuple[list[str], str]:
    results = [result for result in day.results if result.job.image is not None and not result.job.endings]
    problems = [
        f"{_name(result.job)}: the bytes differ" for result in results if _arrived(day, result) != result.job.image
    ]
    return problems, f"{len(results)} images"


def _arrived(day: Day, result: Result) -> bytes | None:
    """Return the image that was downloaded, or that CRM has stored."""
    return result.content if result.job.name == "download image" else day.records[result.job.ids[0]].image


def _calls_counted(day: Day) -> tuple[list[str], str]:
    reported, logged = sum(result.calls for result in day.results), len(day.calls)
    problems = (
        [f"the guard reports {reported} calls, the simulator answered {logged}"] if reported != logged else []
    )
    return problems, f"{logged} calls"


def _name(job: Job) -> str:
    return f"{job.name} of {job.ids[0] if job.single else f'{len(job.ids)} {job.module}'}"


_CHECKS: Final[Mapping[str, Callable[[Day], tuple[Iterable[str], str]]]] = {
    "no job failed": _jobs_ended,
    "each write reached its record exactly once": _written_once,
    "no blocked record was written": _blocked_untouched,
    "every transient lock was waited out": _locks_waited_out,
    "every block was recognised, case and state": _cases_recognised,
    "only what CRM refused was resent": _nothing_repeated,
    "each record of a batch has one result": _one_answer_each,
    "images arrived byte for byte": _images_intact,
    "every call is accounted for": _calls_counted,
}
