"""The law: whatever CRM and the way to it do, each row is written exactly once, or told otherwise; in order."""

from __future__ import annotations

import json
import random
from contextlib import ExitStack
from typing import Any

import pytest
import requests

import crm_guard
from crm_guard.row_results import RowState
from crm_guard.simulator import Engine, Request, Simulator, State
from tests.bulk.world import FIRST, QUICK, check, rows_of, session_for, url_of

FAULTS = (
    {"kind": "reset"},
    {"kind": "reset", "applied": True},
    {"kind": "drop"},
    {"kind": "drop", "applied": True},
    {"kind": "truncated", "applied": True},
    {"kind": "429"},
    {"kind": "500"},
    {"kind": "500", "applied": True},
    {"kind": "502"},
    {"kind": "empty"},
    {"kind": "garbage", "applied": True},
    {"kind": "too_few_items"},
    {"kind": "extra_item"},
    {"kind": "foreign_id"},
    {"kind": "reordered"},
    {"kind": "slow", "seconds": 0.02},
    {"kind": "401"},
)
THEN = (State.APPROVED,) * 8 + (State.ZIA_VISION_REJECTED, State.RECORD_LOCKING)


class EndedError(Exception):
    """Raised in the loop, or by the input."""


class Case:
    """One drawn run."""

    def __init__(self, seed: int, *, calm: bool) -> None:
        draw = self.draw = random.Random(seed)
        self.count = draw.choice((1, 2, 7, 40, 100, 150))
        self.size = draw.choice((1, 3, 10, 25, 100)) if self.count < 100 else draw.choice((7, 10, 25, 100))
        self.workers = draw.randint(1, 5)
        self.most = draw.choice((1, 3, self.size, 60, 10_000)) if self.count <= 40 else draw.choice((30, 10_000))
        self.faults = [] if calm else draw.sample(FAULTS, draw.choice((0, 1, 1, 2, 3)))
        self.how = draw.choice(("mounted", "plain", "install"))
        ends = (None,) if calm else (None, None, "break", "close", "raise", "stop", "rows")
        self.end, self.at = draw.choice(ends), draw.randint(0, self.count)
        pool = [str(FIRST + number) for number in range(max(1, int(self.count * draw.choice((0.3, 0.8, 1.0)))))]
        self.rows = rows_of(draw.choice(pool) for _ in range(self.count))
        self.states = {record_id: self.state() for record_id in pool}

    def state(self) -> dict[str, Any] | None:
        """Return where a record stands, None for one that CRM does not know."""
        then = self.draw.choice(THEN)
        lock = self.draw.random()
        if lock < 0.04:
            return None
        if lock < 0.14:
            return {"refusals": self.draw.randint(1, 3), "then": then}
        if lock < 0.24:
            return {"locked_for": self.draw.uniform(0.005, 0.05), "then": then}
        return {"state": then}

    def settle(self, crm: Engine, *, locks: bool) -> None:
        for record_id, state in self.states.items():
            if state is not None:
                unlocked = {"state": state["then"]} if "then" in state else state
                crm.add_record("Leads", record_id, **(state if locks else unlocked))

    def input(self) -> Any:
        for index, row in enumerate(self.rows):
            if self.end == "rows" and index == self.at:
                raise EndedError
            yield row

    def write(self, crm: Simulator, results: list[Any]) -> tuple[Any, BaseException | None]:
        """Write the rows; return the writer, and what it raised."""
        with ExitStack() as stack:
            session = stack.enter_context(requests.Session() if self.how != "mounted" else session_for(crm))
            if self.how == "install":
                stack.enter_context(crm_guard.install(crm.url, settings=QUICK))
            writer = crm_guard.write_records(
                session,
                "PUT",
                url_of(crm),
                self.input(),
                batch_size=self.size,
                workers=self.workers,
                max_pending=self.most,
                settings=QUICK,
            )
            try:
                with writer:
                    self.loop(writer, results)
            except (EndedError, requests.RequestException) as exc:
                return writer, exc
        return writer, None

    def loop(self, writer: Any, results: list[Any]) -> None:
        for result in writer:
            results.append(result)
            if len(results) != self.at:
                continue
            if self.end == "break":
                break
            if self.end == "close":
                writer.close()
            elif self.end == "raise":
                raise EndedError
            elif self.end == "stop":
                crm_guard.stop_waiting()


@pytest.mark.parametrize("seed", range(36))
def test_each_row_is_written_once_or_told_otherwise(seed):
    case, results = Case(seed, calm=False), []
    with Simulator(shuffle=bool(seed % 2), details_style=("seed", "oas")[seed % 3 == 0]) as crm:
        case.settle(crm, locks=True)
        for fault in case.faults:
            crm.fault(**fault, after=case.draw.randint(0, 4), times=case.draw.randint(1, 2))
        writer, error = case.write(crm, results)
        check(crm, case.rows, results, writer)
        if error is None and case.end is None:
            assert writer.counts.read == len(results) == case.count
            assert not writer.unfinished()
        assert case.end or not isinstance(error, EndedError)


@pytest.mark.parametrize("seed", range(100, 112))
def test_without_trouble_all_is_as_if_it_had_never_been_locked(seed):
    """Codes and fields equal those of a twin that never locked a record, and got row after row."""
    case, results = Case(seed, calm=True), []
    with Simulator() as crm:
        case.settle(crm, locks=True)
        writer, error = case.write(crm, results)
        check(crm, case.rows, results, writer)
        told = {result.index: result.outcome.code for result in results}
        fields = {record_id: found.fields for record_id, found in crm.records.items()}
    twin = Engine()
    case.settle(twin, locks=False)
    expected = {index: _code(twin, row) for index, row in enumerate(case.rows)}
    assert error is None
    assert told == expected
    assert {key: value.get("Company") for key, value in fields.items()} == {
        key: found.fields.get("Company") for key, found in twin.records.items()
    }


def _code(twin: Engine, row: dict[str, Any]) -> str:
    body = json.dumps({"data": [row]}).encode()
    reply = twin.handle(
        Request(method="PUT", path="/crm/v8/Leads", headers={"Content-Type": "application/json"}, body=body)
    )
    answer = reply.json()
    return str((answer["data"][0] if "data" in answer else answer)["code"])


def test_an_end_before_time_leaves_rows_of_every_state(crm, session, leads):
    """The cases above are no mere successes: this is what they must tell apart."""
    free, locked = crm.add_record("Leads", FIRST), crm.add_record("Leads", FIRST + 1, locked_for=60)
    rows = rows_of([free, locked, locked, free, free])
    with crm_guard.write_records(session, "PUT", leads, rows, batch_size=2, workers=1, max_pending=5) as writer:
        assert next(writer).index == 0
    states = {row.index: row.state for row in writer.unfinished()}
    assert states[1] is RowState.PARKED
    assert states[2] is RowState.NEVER_SENT
    assert {states.get(3), states.get(4)} <= {None, RowState.NEVER_SENT, RowState.ANSWERED}
