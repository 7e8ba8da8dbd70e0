"""Requests that no client should send: each is answered, none of them changes anything, and the server lives on."""

from __future__ import annotations

import io
import json
import socket
from email.message import Message
from typing import TYPE_CHECKING, Any

import pytest
import requests

from crm_guard.simulator import Engine, Request, Simulator
from crm_guard.simulator.bodies import read_body
from crm_guard.simulator.messages import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Send

LIMIT = 32 * 1024 * 1024
BODY = b'{"data":[{"Company":"Zylker"}]}'


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def port_of(crm: Simulator) -> int:
    return int(crm.url.rpartition(":")[2])


def answer_to(crm: Simulator, lead: str, headers: bytes, body: bytes = b"") -> bytes:
    """Send one update as these bytes, and return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port_of(crm)), timeout=10) as client:
        client.sendall(b"PUT /crm/v8/Leads/%s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (lead.encode(), headers, body))
        received = b""
        while piece := client.recv(65536):
            received += piece
        return received


@pytest.fixture
def lead(crm: Simulator, capfd: pytest.CaptureFixture[str]) -> Iterator[str]:
    """A lead that only the last call may change; nobody hears of the rest."""
    record_id = crm.add_record("Leads")
    yield record_id
    assert (crm.calls, crm.writes(record_id)) == ((), 0)
    assert requests.put(f"{crm.url}/crm/v8/Leads/{record_id}", data=BODY, timeout=5).status_code == 200
    assert crm.writes(record_id) == 1
    crm.stop()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: five\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 1_0\r\n",
        b"Content-Length: 5.0\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: unchunked\r\n",
        b"Transfer-Encoding: identity\r\n",
    ],
)
def test_a_length_that_is_none_is_answered_with_400(crm: Simulator, lead: str, headers: bytes) -> None:
    received = answer_to(crm, lead, headers, BODY)
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in received
    assert b"INVALID_REQUEST" in received


@pytest.mark.parametrize("length", [b"%d" % (LIMIT + 1), b"9" * 18, b"9" * 19, b"9" * 5000])
def test_a_body_that_is_too_large_is_answered_with_413_and_not_read(
    crm: Simulator, lead: str, length: bytes
) -> None:
    """Little of it ever comes, and the answer is there all the same."""
    received = answer_to(crm, lead, b"Content-Length: %s\r\n" % length, BODY)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["details"] == {"limit": LIMIT}


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\nab\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"\r\n",
        b"3\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5;" + b"x" * 5000,
        b"f" * 5000,
        b"f" * 16 + b"\r\n",
        b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n",
    ],
)
def test_malformed_chunks_are_answered_with_400(crm: Simulator, lead: str, body: bytes) -> None:
    received = answer_to(crm, lead, b"Transfer-Encoding: chunked\r\n", body)
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    "body", [b"2000001\r\nabc", b"f" * 15 + b"\r\nabc", b"1fffffc\r\n%s\r\n5\r\n" % bytes(0x1FFFFFC)]
)
def test_chunks_that_are_too_large_together_are_answered_with_413(crm: Simulator, lead: str, body: bytes) -> None:
    received = answer_to(crm, lead, b"Transfer-Encoding: chunked\r\n", body)
    assert received.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("body", [b"5", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"0\r\n", b"0\r\nA: b"])
def test_a_client_that_leaves_in_the_middle_of_its_chunks_changes_nothing(
    crm: Simulator, lead: str, body: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port_of(crm)), timeout=10) as client:
        client.sendall(b"DELETE /crm/v8/Leads/%s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % lead.encode())
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_body_that_no_header_announces_is_no_body(crm: Simulator) -> None:
    """What follows is read as the next request, which it is not."""
    lead = crm.add_record("Leads")
    received = answer_to(crm, lead, b"", BODY + b"\r\n")
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Error code: 400" in received
    assert crm.writes(lead) == 0
    assert requests.get(f"{crm.url}/crm/v8/Leads/{lead}", timeout=5).status_code == 200


def test_well_formed_chunks_are_read() -> None:
    for body in (
        b"3\r\nabc\r\n0\r\n\r\n",
        b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"003 ; name=value\r\nabc\r\n000\r\nTrailer: x\r\n\r\n",
        b"3\nabc\n0\n\n",
    ):
        headers = Message()
        headers["transfer-encoding"] = "Chunked"
        stream = io.BytesIO(body + b"GET ")
        assert read_body(headers, stream, 3) == b"abc"
        assert stream.read() == b"GET "
        with pytest.raises(RequestError):
            read_body(headers, io.BytesIO(body), 2)


def test_the_largest_body_is_an_option_and_its_client_gets_the_answer() -> None:
    """Although it sends it all before it looks for one."""
    with Simulator(max_body=len(BODY)) as crm:
        url = f"{crm.url}/crm/v8/Leads/{crm.add_record('Leads')}"
        assert requests.put(url, data=BODY, timeout=5).status_code == 200
        assert requests.put(url, data=BODY + b" ", timeout=5).status_code == 413
        assert requests.put(url, data=bytes(4 * 1024 * 1024), timeout=5).status_code == 413
        assert requests.put(url, data=iter([BODY, b" "]), timeout=5).status_code == 413
        assert len(crm.calls) == 1


@pytest.mark.parametrize("depth", [101, 1000, 100_000])
def test_json_that_is_nested_too_deeply_is_answered_with_400(crm: Simulator, depth: int) -> None:
    lead = crm.add_record("Leads")
    deep = nested(depth)
    sub_request = f'{{"uri":"/crm/v8/org","method":"GET","body":{deep}}}'
    for method, path, body in (
        ("PUT", f"Leads/{lead}", deep),
        ("PUT", "Leads", f'{{"data":[{{"id":"{lead}","Company":{deep}}}]}}'),
        ("POST", "Leads/actions/add_tags", json.dumps({"ids": f"[{deep}]", "tags": [{"name": "x"}]})),
        ("POST", "__composite_requests", f'{{"__composite_requests":[{sub_request}]}}'),
    ):
        answer = requests.request(method, f"{crm.url}/crm/v8/{path}", data=body, timeout=5)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_DATA")
    assert crm.writes(lead) == 0


def test_json_that_is_nested_less_deeply_is_kept_and_copied(engine: Engine, send: Send) -> None:
    lead = engine.add_record("Leads", fields={"Last_Name": "Rowland"})
    body = f'{{"data":[{{"Company":{nested(97)}}}]}}'.encode()
    assert send(engine, "PUT", f"Leads/{lead}", raw=body).status == 200
    assert send(engine, "POST", f"Leads/{lead}/actions/clone").status == 201
    assert json.dumps(engine.get(lead).fields["Company"]) == nested(97)


TAGS = {"tags": [{"name": "t"}], "ids": ["1"]}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        (
            "PUT",
            "Leads/1",
            {"data": [{"a": "b"}]},
            {"If_Unmodified_Since": "1 Jan 20 00:00:00 +999999999999999"},
            200,
        ),
        ("PUT", "Leads/1", {"data": [{"a": "b"}]}, {"If_Unmodified_Since": "1 Jan 99999999999999999999"}, 200),
        ("GET", "Leads?fields=id&page=" + "9" * 5000, None, {}, 400),
        ("POST", "Leads/upsert", {"data": [{"Email": "x"}], "duplicate_check_fields": 5}, {}, 400),
        ("POST", "Leads/upsert", {"data": [{"Email": "x"}], "duplicate_check_fields": [["Email"]]}, {}, 400),
        (
            "POST",
            "__composite_requests",
            {"__composite_requests": [{"uri": "/crm/v8/Leads/1", "method": "GET", "params": {"a": "\ud800"}}]},
            {},
            200,
        ),
        ("POST", "Leads/actions/add_tags", TAGS | {"ids": "[" * 5000}, {}, 400),
    ],
)
def test_what_has_no_meaning_is_answered(
    engine: Engine, send: Send, method: str, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    engine.add_record("Leads", "1")
    assert send(engine, method, path, body, **headers).status == status


def test_half_a_surrogate_pair_is_read_as_a_question_mark(engine: Engine, send: Send) -> None:
    lead = engine.add_record("Leads")
    send(engine, "PUT", f"Leads/{lead}", {"data": [{"Company": "Zylker \ud800"}]})
    assert send(engine, "GET", f"Leads/{lead}?fields=Company").json()["data"][0]["Company"] == "Zylker ?"


class TestTheLog:
    """It keeps the latest calls; what is counted stays exact."""

    def test_keeps_ten_thousand_calls(self, engine: Engine) -> None:
        for number in range(10_050):
            engine.handle(Request(method="GET", path="/crm/v8/org", query=str(number)))
        assert [call.query for call in engine.calls] == [str(number) for number in range(50, 10_050)]
        assert (engine.answered, engine.credits_spent) == (10_050, 10_050)

    def test_keeps_sixty_four_mebibytes(self, engine: Engine) -> None:
        image = bytes(1024 * 1024)
        engine.add_record("Leads", "1", image=image)
        for _ in range(100):
            engine.handle(Request(method="GET", path="/crm/v8/Leads/1/photo"))
            engine.handle(Request(method="PUT", path="/crm/v8/Leads", body=image))
        assert 60 * 1024 * 1024 < sum(call.size for call in engine.calls) <= 64 * 1024 * 1024
        assert engine.answered == 200

    def test_counts_what_it_does_not_keep(self) -> None:
        engine = Engine(log_calls=2)
        engine.add_record("Leads", "1", refusals=3)
        for _ in range(5):
            engine.handle(Request(method="PUT", path="/crm/v8/Leads/1", body=BODY))
        assert [call.status for call in engine.calls] == [200, 200]
        assert (engine.writes("1"), engine.refusals("1"), engine.answered, engine.credits_spent) == (2, 3, 5, 5)

    def test_counts_bodies_paths_queries_and_headers(self) -> None:
        engine = Engine(log_bytes=1000)
        request = Request(method="GET", path="/crm/v8/none", query="q" * 100, headers={"name": "value"})
        for _ in range(20):
            engine.handle(request)
        (size,) = {call.size for call in engine.calls}
        assert size == len(engine.calls[0].response_body) + len("/crm/v8/none") + 100 + len("namevalue")
        assert len(engine.calls) == 1000 // size

    def test_keeps_the_latest_call_whatever_its_size(self) -> None:
        engine = Engine(log_bytes=0)
        for query in "ab":
            engine.handle(Request(method="GET", path="/crm/v8/org", query=query))
        assert [call.query for call in engine.calls] == ["b"]

    def test_begins_anew_when_it_is_reset(self) -> None:
        engine = Engine(log_bytes=1000)
        for _ in range(10):
            engine.handle(Request(method="GET", path="/crm/v8/org"))
        full = len(engine.calls)
        engine.reset_log()
        assert (engine.calls, engine.answered) == ((), 0)
        for _ in range(10):
            engine.handle(Request(method="GET", path="/crm/v8/org"))
        assert (len(engine.calls), engine.answered) == (full, 10)

    @pytest.mark.parametrize("option", [{"log_calls": 0}, {"log_bytes": -1}, {"max_body": -1}])
    def test_has_bounds_that_are_numbers_of_calls_and_bytes(self, option: Any) -> None:
        with pytest.raises(ValueError, match="is out of range"):
            Engine(**option)
