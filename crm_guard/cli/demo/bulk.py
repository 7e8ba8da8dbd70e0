"""The demo's bulk update: rows of which a few are locked, written by `write_records`, and in batches that wait.

Both go to a simulator of their own with the same records and the same locks, through the same number of threads. A
lock begins when its row is first sent: images come in all day, and a few records are in a check at any moment.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import requests

from crm_guard.bulk import write_records
from crm_guard.cli.demo.checks import Check
from crm_guard.mounting import mount_guard
from crm_guard.simulator import Reply, Request, Simulator, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crm_guard.settings import GuardSettings

_FIRST_ID: Final = 111112000000100001
_MODULE: Final = "Contacts"
_BATCH: Final = 100
_THREADS: Final = 4
_ROWS_PER_LOCK: Final = 100
_FASTER: Final = 10
"""How much faster than the rest of the demo: batches that wait take long."""
_SHORTEST_LOCK: Final = 1.0
_LONGEST_LOCK: Final = 8.0
_LATENCY: Final = 0.2

Row = dict[str, Any]


class _LateLocks(Simulator):
    """A CRM in which each of some records is locked from when it is first written to.

    Args:
        locks: Seconds of each lock, by record id.
        **options: As for `Simulator`.
    """

    def __init__(self, locks: dict[str, float], **options: Any) -> None:
        super().__init__(**options)
        self._locks = dict(locks)

    def handle(self, request: Request, *, hold: Callable[[float], object] | None = None) -> Reply:
        for record_id in [name for name in list(self._locks) if name.encode() in request.body]:
            seconds = self._locks.pop(record_id, None)
            if seconds is not None:
                self.set_state(record_id, State.ZIA_VISION_VALIDATION, locked_for=seconds)
        return super().handle(request, hold=hold)


class Way(NamedTuple):
    """What writing the rows took in one of the ways.

    Attributes:
        calls: Requests that the simulator answered.
        seconds: Duration.
        wrong: How many rows were not written exactly once.
        error: What ended it before time; empty if nothing did.
    """

    calls: int
    seconds: float
    wrong: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """What writing the rows took in both ways.

    Attributes:
        rows: How many there were.
        locked: How many of them were locked at first.
        writer: By `write_records`.
        batches: In batches that wait until all of their rows are written.
    """

    rows: int
    locked: int
    writer: Way
    batches: Way

    def check(self) -> Check:
        """Return the check that each row was written exactly once, both times."""
        problems = [
            f"{name}: {way.error or f'not so for {counted_rows(way.wrong)}'}"
            for name, way in (("write_records", self.writer), ("batches", self.batches))
            if way.wrong or way.error
        ]
        detail = "; ".join(problems) or f"{counted_rows(self.rows)}, both ways"
        return Check("each row of the bulk update was written exactly once", not problems, detail)

    def lines(self) -> tuple[str, str]:
        """Return one line about each way."""
        writer, batches, rows = self.writer, self.batches, counted_rows(self.rows)
        return (
            f"write_records: {rows}, {self.locked} locked: {writer.calls} calls, {writer.seconds:.1f} s.",
            f"Guarded batches that wait, {_THREADS} threads: {batches.calls} calls, {batches.seconds:.1f} s.",
        )

    def document(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        ways = {"write_records": self.writer, "batches": self.batches}
        return {
            "rows": self.rows,
            "locked": self.locked,
            **{name: {**way._asdict(), "seconds": round(way.seconds, 3)} for name, way in ways.items()},
        }


def counted_rows(number: int) -> str:
    """Return `1 row`, or so many `rows`."""
    return "1 row" if number == 1 else f"{number} rows"


def run_bulk(rows: int, settings: GuardSettings, *, seed: int, speed: float, shows: bool) -> Bulk:
    """Write the rows in both ways, one after the other.

    Args:
        rows: How many.
        settings: Of the guard.
        seed: Seed of the locks.
        speed: Divisor of durations.
        shows: Show a bar on stderr, if that is a terminal.
    """
    rng, pace = random.Random(seed), speed * _FASTER
    policy = msgspec.structs.replace(
        settings,
        wait_initial=settings.wait_initial / _FASTER,
        wait_max=settings.wait_max / _FASTER,
    )
    data = [{"id": str(_FIRST_ID + number), "Description": f"Call number {number}"} for number in range(rows)]
    drawn = rng.sample(data, max(1, rows // _ROWS_PER_LOCK))
    locks = {row["id"]: rng.uniform(_SHORTEST_LOCK, _LONGEST_LOCK) / pace for row in drawn}

    def in_rows(session: requests.Session, url: str) -> None:
        with write_records(session, "PUT", url, data, workers=_THREADS, progress=shows) as writer:
            for _ in writer:
                pass

    def in_batches(session: requests.Session, url: str) -> None:
        batches = [data[start : start + _BATCH] for start in range(0, rows, _BATCH)]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="crm-guard-demo") as pool:
            for _ in pool.map(lambda batch: session.put(url, json={"data": batch}), batches):
                pass

    ways = [_timed(way, data, locks, policy, _LATENCY / pace) for way in (in_rows, in_batches)]
    return Bulk(rows=rows, locked=len(locks), writer=ways[0], batches=ways[1])


def _timed(
    way: Callable[[requests.Session, str], None],
    data: Sequence[Row],
    locks: dict[str, float],
    policy: GuardSettings,
    latency: float,
) -> Way:
    with _LateLocks(locks, latency=latency) as crm, requests.Session() as session:
        session.trust_env = False  # the simulator is not behind a proxy
        mount_guard(session, crm.url, settings=policy, pool_maxsize=_THREADS)
        for row in data:
            crm.add_record(_MODULE, row["id"])
        started, error = time.monotonic(), ""
        try:
            way(session, f"{crm.url}/crm/v8/{_MODULE}")
        except requests.RequestException as exc:
            error = type(exc).__name__
        seconds = time.monotonic() - started
        counts = Counter(crm.write_counts)
        return Way(crm.answered, seconds, sum(counts[row["id"]] != 1 for row in data), error)
