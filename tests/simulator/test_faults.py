"""Faults: which calls they hit, what the client sees, and what CRM did meanwhile."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
import requests

from crm_guard.simulator import FOREIGN_ID, Engine, FaultKind, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]


def _update(send: Send, engine: Engine, *ids: str) -> Reply:
    return send(engine, "PUT", "Leads", {"data": [{"id": entry} for entry in ids]})


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("kind", FaultKind)
def test_a_fault_applies_the_call_exactly_when_told_to(
    send: Send, engine: Engine, kind: FaultKind, applied: bool
) -> None:
    first, second = engine.add_record("Leads"), engine.add_record("Leads")
    planned = engine.fault(kind, applied=applied)
    _update(send, engine, first, second)
    assert (engine.writes(first), engine.writes(second)) == (applied, applied)
    assert bool(engine.calls[-1].applied_ids) == applied
    assert (engine.calls[-1].fault, planned.delivered) == (kind.value, 1)
    assert _update(send, engine, first).status == 200


@pytest.mark.parametrize(
    ("kind", "default"), [("reset", 0), ("truncated", 0), (500, 0), ("slow", 1), ("reordered", 1)]
)
def test_only_true_answers_are_applied_by_default(
    send: Send, engine: Engine, kind: str | int, default: int
) -> None:
    lead = engine.add_record("Leads")
    engine.fault(kind)
    _update(send, engine, lead)
    assert engine.writes(lead) == default


def test_a_rehearsed_answer_leaves_no_trace(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads", refusals=1)
    engine.fault("truncated")
    _update(send, engine, lead)
    assert (engine.refusals(lead), engine.get(lead).refusals_left) == (0, 1)


@pytest.mark.parametrize(("kind", "expected"), [("too_few_items", "ab"), ("extra_item", "abcX"),
    ("foreign_id", "abX"),
    ("reordered", "cba")])  # fmt: skip
def test_items_can_be_spoiled(send: Send, engine: Engine, kind: str, expected: str) -> None:
    ids = {letter: engine.add_record("Leads") for letter in "abc"} | {"X": FOREIGN_ID}
    engine.fault(kind)
    items = _update(send, engine, *(ids[letter] for letter in "abc")).json()["data"]
    assert [entry["details"]["id"] for entry in items] == [ids[letter] for letter in expected]


def test_answers_without_items_are_not_spoiled(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads", state="zia_vision_pending", image=b"{")
    engine.fault("foreign_id", times=None)
    assert send(engine, "PUT", f"Leads/{lead}", {"data": [{}]}).json()["code"] == "NOT_APPROVED"
    engine.unlock(lead)
    assert send(engine, "GET", f"Leads/{lead}/photo").body == b"{"


def test_faults_choose_their_calls(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads")
    engine.fault(500, after=1, times=2, method="put", path=r"/Leads$")
    send(engine, "PUT", f"Leads/{lead}", {"data": [{}]})
    send(engine, "GET", "Leads?fields=id")
    assert [_update(send, engine, lead).status for _ in range(4)] == [200, 500, 500, 200]
    engine.fault(502, times=None)
    assert [_update(send, engine, lead).status for _ in range(2)] == [502, 502]
    engine.clear_faults()
    assert _update(send, engine, lead).status == 200


def test_of_two_plans_the_first_due_takes_the_call(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads")
    engine.fault(500, after=1)
    engine.fault(502)
    assert [_update(send, engine, lead).status for _ in range(3)] == [502, 500, 200]


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (2, "2"), (1.5, "2")])
def test_a_429_can_say_when_to_come_back(
    send: Send, engine: Engine, seconds: float | None, header: str | None
) -> None:
    engine.fault(429, retry_after=seconds)
    reply = _update(send, engine, "1")
    assert (reply.status, reply.headers.get("Retry-After")) == (429, header)
    assert reply.json()["details"] == ({} if seconds is None else {"retry_after": seconds})


@pytest.mark.parametrize(
    ("body", "sent"), [(None, b""), ("text", b"text"), (b"raw", b"raw"), ({"a": 1}, b'{"a":1}')]
)
def test_any_answer_can_be_given(send: Send, engine: Engine, body: Any, sent: bytes) -> None:
    engine.fault("answer", status=418, body=body, headers={"X-A": "b"})
    reply = _update(send, engine, "1")
    assert (reply.status, reply.body, reply.headers) == (418, sent, {"X-A": "b"})


def test_unknown_kinds_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="not a valid FaultKind"):
        engine.fault("flood")


class TestOverHttp:
    @pytest.mark.parametrize("applied", [False, True])
    @pytest.mark.parametrize(("kind", "error", "text"), [
        ("reset", requests.ConnectionError, "reset by peer"),
        ("drop", requests.ConnectionError, "without response"),
        ("close", requests.ConnectionError, "without response"),
        ("truncated", requests.exceptions.ChunkedEncodingError, "IncompleteRead"),
    ])  # fmt: skip
    def test_broken_connections_raise(
        self, crm: Simulator, kind: str, error: type[Exception], text: str, applied: bool
    ) -> None:
        lead = crm.add_record("Leads")
        crm.fault(kind, applied=applied)
        with requests.Session() as session:
            with pytest.raises(error, match=text):
                session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{}]})
            assert crm.writes(lead) == applied
            assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{}]}).status_code == 200
        assert crm.connections == 2

    @pytest.mark.parametrize(("kind", "status", "start"), [(401, 401, '{"code":"INVALID_TOKEN"'),
        (429, 429, '{"code":"TOO'), (500, 500, '{"code":"INTERNAL'), (502, 502, "<html>"), ("empty", 204, ""),
        ("garbage", 200, '{"data":[{"code":"RECORD_LOCKED"')])  # fmt: skip
    def test_bad_answers_keep_the_connection(self, crm: Simulator, kind: Any, status: int, start: str) -> None:
        with requests.Session() as session:
            crm.fault(kind)
            answer = session.delete(f"{crm.url}/crm/v8/Leads/1")
            assert (answer.status_code, answer.text[: len(start)]) == (status, start)
            session.delete(f"{crm.url}/crm/v8/Leads/1")
        assert crm.connections == 1

    @pytest.mark.parametrize("status", [204, 304])
    def test_an_answer_that_has_no_body_by_its_status_is_sent_without_one(
        self, crm: Simulator, status: int
    ) -> None:
        crm.fault("answer", status=status, body={"code": "GONE"})
        with socket.create_connection(("127.0.0.1", int(crm.url.rpartition(":")[2])), timeout=10) as client:
            client.sendall(b"GET /crm/v8/org HTTP/1.1\r\n\r\nGET /crm/v8/org HTTP/1.1\r\nConnection: close\r\n\r\n")
            received = b"".join(iter(lambda: client.recv(65536), b""))
        first, _, rest = received.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 %d " % status)
        assert rest.startswith(b"HTTP/1.1 200 OK\r\n")

    def test_a_slow_answer_outlasts_the_client_and_the_simulator_does_not_wait_for_it(self, crm: Simulator) -> None:
        lead = crm.add_record("Leads")
        crm.fault("slow", seconds=3600.0)
        with requests.Session() as session, pytest.raises(requests.ReadTimeout):
            session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{}]}, timeout=0.05)
        assert crm.writes(lead) == 1
