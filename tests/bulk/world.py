"""What the tests of `write_records` share: a CRM with locks of milliseconds, and the truth about every row."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.adapters import HTTPAdapter

import crm_guard
from crm_guard import GuardSettings
from crm_guard.row_results import RowState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from crm_guard.bulk import RecordWriter
    from crm_guard.simulator import Engine, Simulator

FIRST = 555000000000000001
QUICK = GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=8.0, attempts=10_000)
UNWRITTEN = {RowState.NEVER_SENT, RowState.PARKED}


def add(crm: Engine, count: int, **state: Any) -> list[str]:
    """Add leads, the first of them with an id of its own."""
    start = FIRST + len(crm.records)
    return [crm.add_record("Leads", start + number, **state) for number in range(count)]


def rows_of(ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return a row for each id; its company is its index, so that the log tells which row was written when."""
    return [{"id": record_id, "Company": str(index)} for index, record_id in enumerate(ids)]


def session_for(crm: Simulator, settings: GuardSettings = QUICK, **options: Any) -> requests.Session:
    session = requests.Session()
    session.mount(crm.url + "/", crm_guard.GuardAdapter(settings, **options))
    return session


def url_of(crm: Simulator) -> str:
    return f"{crm.url}/crm/v8/Leads"


class Held(HTTPAdapter):
    """Keeps answers back until it is told to let them go.

    Attributes:
        came: Set once an answer is held.
        go: To be set to let all answers go.
        holds: Whether the answer to a request is held.
    """

    def __init__(self, holds: Callable[[requests.PreparedRequest], bool] = lambda _: True) -> None:
        super().__init__(pool_maxsize=10)
        self.came, self.go, self.holds = threading.Event(), threading.Event(), holds
        self.held = 0

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = super().send(request, **options)
        if not self.go.is_set() and self.holds(request):
            self.held += 1
            self.came.set()
            assert self.go.wait(20)
        return response


def take(writer: RecordWriter[Any], into: list[Any] | None = None) -> tuple[list[Any], BaseException | None]:
    """Take all results; return them, and what the writer raised."""
    results = [] if into is None else into
    try:
        with writer:
            results += writer
    except Exception as exc:  # noqa: BLE001 (the test looks at it)
        return results, exc
    return results, None


def applied(crm: Engine) -> list[tuple[str, str]]:
    """Return each write that CRM applied, in order: record and company."""
    found = []
    for call in crm.calls:
        if call.applied_ids and call.body:
            values = {row["id"]: row["Company"] for row in json.loads(call.body)["data"]}
            found += [(record_id, values[record_id]) for record_id in call.applied_ids]
    return found


def check(
    crm: Engine, rows: list[dict[str, Any]], results: list[Any], writer: RecordWriter[Any], *, at_rest: bool = True
) -> None:
    """Check that each row read is told of once, and truly; that none is written twice, and that order is kept.

    Counts are compared only `at_rest`: while a thread lives, they change.
    """
    left = writer.unfinished()
    counts = writer.counts
    told = [result.index for result in results] + [row.index for row in left]
    assert sorted(told) == list(range(counts.read)), "a row is lost, or told of twice"
    assert [row.index for row in left] == sorted(row.index for row in left)
    log = applied(crm)
    written = Counter(log)
    assert max(written.values(), default=0) <= 1, "a row was written twice"
    for result in results:
        assert result.row is rows[result.index]
        assert result.outcome.position == result.index
        if not result.outcome.uncertain:
            assert written[_shown(result.row)] == result.succeeded, result
    for row in left:
        assert row.row is rows[row.index]
        assert row.state is not RowState.IN_FLIGHT
        if row.may_be_sent:
            assert not written[_shown(row.row)], row
        elif row.state is RowState.ANSWERED and not row.outcome.uncertain:
            assert written[_shown(row.row)] == row.outcome.succeeded, row
        assert row.may_be_sent or row.state not in UNWRITTEN
    _check_order(log)
    if at_rest and not writer._crew._abandoned:  # a second Ctrl-C leaves answers uncounted
        _check_counts(counts, results, left)


def _shown(row: Any) -> tuple[str, str]:
    return (row["id"], str(row["Company"])) if isinstance(row, dict) and "id" in row else ("", repr(row))


def _check_order(log: list[tuple[str, str]]) -> None:
    last: dict[str, int] = {}
    for record_id, company in log:
        assert last.get(record_id, -1) < int(company), "a later row of a record was written first"
        last[record_id] = int(company)


def _check_counts(counts: Any, results: list[Any], left: list[Any]) -> None:
    ends = [(result.succeeded, result.outcome) for result in results]
    ends += [(row.outcome.succeeded, row.outcome) for row in left if row.state is RowState.ANSWERED]
    assert counts.written == sum(succeeded for succeeded, _ in ends)
    assert counts.uncertain == sum(outcome.uncertain for _, outcome in ends)
    assert counts.final == len(ends)
    assert counts.final + counts.waiting + counts.in_flight <= counts.read
    assert counts.final_below == (left[0].index if left else counts.read)


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail("it did not come to this")


def threads() -> list[threading.Thread]:
    """Return the threads of writers that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("crm_guard-writer-")]


def nothing_lives() -> bool:
    """Return whether the threads of all writers end by themselves."""
    pause, end = threading.Event(), time.monotonic() + 10
    while threads() and time.monotonic() < end:
        pause.wait(0.002)
    return not threads()
