"""The HTTP side: keep-alive, encodings, start and stop."""

from __future__ import annotations

import ast
import dataclasses
import re
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

import crm_guard.simulator
from crm_guard.simulator import Engine, EngineOptions, Options, Request, Simulator, State

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE_ROOT = Path(crm_guard.simulator.__file__).parents[2]


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        yield opened


def test_many_calls_share_one_connection(crm: Simulator, session: requests.Session) -> None:
    lead = crm.add_record("Leads")
    for _ in range(50):
        assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{}]}).status_code == 200
    assert crm.connections == 1
    assert crm.writes(lead) == 50
    assert {call.connection for call in crm.calls} == {1}


def test_calls_are_logged_as_sent(crm: Simulator, session: requests.Session) -> None:
    lead = crm.add_record("Leads", state="zia_vision_validation")
    answer = session.put(f"{crm.url}/crm/v8/Leads?a=%2C", json={"data": [{"id": lead}]}, headers={"X-A": "1"})
    (call,) = crm.calls
    assert (call.method, call.path, call.query, call.url) == (
        "PUT",
        "/crm/v8/Leads",
        "a=%2C",
        "/crm/v8/Leads?a=%2C",
    )
    assert (call.header("x-a"), call.body, call.json()) == ("1", answer.request.body, {"data": [{"id": lead}]})
    assert (call.status, call.response_body) == (400, answer.content)
    assert (call.record_ids, call.applied_ids, call.refused_ids) == ((lead,), (), (lead,))
    assert call.at == 100.0


def test_requests_encodes_what_the_simulator_reads(crm: Simulator, session: requests.Session) -> None:
    """`requests` sends `$` and commas percent-encoded, bodies in chunks, and files as multipart."""
    ids = [crm.add_record("Leads", state=state) for state in ("approved", "zia_vision_pending")]
    params = {"ids": ",".join(ids), "fields": "id,$approval_state", "approved": "both"}
    rows = session.get(f"{crm.url}/crm/v8/Leads", params=params).json()["data"]
    assert [row["$approval_state"] for row in rows] == ["approved", "zia_vision_pending"]
    chunks = iter([b'{"data":', b'[{"Company":"Zylker"}]}'])
    assert session.put(f"{crm.url}/crm/v8/Leads/{ids[0]}", data=chunks).status_code == 200
    assert crm.get(ids[0]).fields == {"Company": "Zylker"}
    files = {"file": ("a.png", b"\x89PNG\r\n\x1a\n\r\n--x")}
    assert session.post(f"{crm.url}/crm/v8/Leads/{ids[0]}/photo", files=files).status_code == 200
    assert session.get(f"{crm.url}/crm/v8/Leads/{ids[0]}/photo").content == files["file"][1]
    assert session.delete(f"{crm.url}/crm/v8/Leads", params={"ids": ids[0]}).status_code == 200
    assert session.head(f"{crm.url}/crm/v8/Leads").status_code == 400
    assert crm.connections == 1


def test_answers_can_be_compressed_and_carry_cookies(session: requests.Session) -> None:
    with Simulator(gzip=True, cookies=True) as crm:
        first = session.delete(f"{crm.url}/crm/v8/Leads/1")
        second = session.delete(f"{crm.url}/crm/v8/Leads/1", headers={"Accept-Encoding": "identity"})
        assert first.headers["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in second.headers
        assert first.json() == second.json()
        assert first.content == crm.calls[0].response_body
        assert [answer.cookies["zalb_sim"] for answer in (first, second)] == ["1", "2"]
        assert second.headers["Content-Length"] == str(len(second.content))
        assert second.headers["Content-Type"] == "application/json;charset=UTF-8"


def test_stopping_does_not_wait_for_idle_connections() -> None:
    """Connections are accepted in order, so the answer to a later one tells that the idle one is in."""
    threads = threading.active_count()
    with Simulator() as crm, requests.Session() as session:
        address, port = crm.url, int(crm.url.rpartition(":")[2])
        session.get(f"{address}/crm/v8/Leads?fields=id")
        with socket.create_connection(("127.0.0.1", port)) as idle:
            requests.get(f"{address}/crm/v8/Leads?fields=id", timeout=30)
            crm.stop()
            assert idle.recv(1) == b""
        assert threading.active_count() <= threads
        with pytest.raises(requests.ConnectionError):
            session.get(address)


def test_stopping_waits_for_threads_whose_connection_has_ended_already() -> None:
    with Simulator() as crm, socket.socket() as connection:
        wire, begun = crm._wire, threading.Event()

        def serve() -> None:
            wire.opened(connection)
            wire.closed(connection)
            begun.set()
            wire.stopping.wait()
            threading.Event().wait(0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        assert begun.wait(10)
        crm.stop()
        assert not thread.is_alive()


def test_stopping_cuts_calls_in_service_short() -> None:
    with Simulator(latency=3600.0) as crm:
        failures: list[Exception] = []

        def call() -> None:
            try:
                requests.get(f"{crm.url}/crm/v8/Leads?fields=id", timeout=30)
            except requests.ConnectionError as error:
                failures.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        while not crm.calls:
            threading.Event().wait(0.001)
        crm.stop()
        thread.join(5)
    assert len(failures) == 1


def test_a_simulator_starts_again_with_its_records() -> None:
    crm = Simulator()
    lead = crm.add_record("Leads", state="zia_vision_pending")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not running"):
            _ = crm.url
        with crm:
            answer = requests.get(f"{crm.url}/crm/v8/Leads/{lead}", timeout=5)
            assert answer.json()["data"][0]["$approval_state"] == State.ZIA_VISION_PENDING
            with pytest.raises(RuntimeError, match="running already"):
                crm.start()
    crm.stop()
    assert crm.connections == 2


def test_a_taken_port_is_an_os_error(crm: Simulator) -> None:
    with pytest.raises(OSError, match="in use"):
        Simulator(port=int(crm.url.rpartition(":")[2])).start()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_it_listens_where_it_is_told_to(host: str) -> None:
    """A machine without IPv6 says so."""
    simulator = Simulator(host=host)
    if ":" in host:
        try:
            socket.create_server((host, 0), family=socket.AF_INET6).close()
        except OSError:
            with pytest.raises(OSError, match=r"."):
                simulator.start()
            return
    with simulator as crm:
        shown = {"localhost": "127.0.0.1", "::1": "[::1]"}.get(host, host)
        assert re.fullmatch(rf"http://{re.escape(shown)}:\d+", crm.url)
        assert requests.get(f"{crm.url}/crm/v8/org", timeout=5).ok


def test_the_control_api_is_there_only_where_it_is_asked_for(crm: Simulator) -> None:
    lead = crm.add_record("Leads")
    for method, path in (("GET", ""), ("POST", "/reset"), ("DELETE", f"/records/{lead}")):
        answer = requests.request(method, f"{crm.url}/__simulator{path}", timeout=5)
        assert (answer.status_code, answer.json()["code"]) == (404, "INVALID_URL_PATTERN")
    assert list(crm.records) == [lead]


def test_the_control_api_meets_nothing_that_stands_in_the_way_of_a_call(session: requests.Session) -> None:
    """No token, no credits, no fault, no latency, no limit; and it leaves no trace in the log."""
    options = EngineOptions(token="t", credits=0, concurrency=1, latency=3600.0)
    with Simulator(control=True, plant=lambda engine: engine.add_record("Leads", "1"), **options) as crm:
        for method in ("GET", "POST"):
            crm.fault("reset", times=None, method=method)
        control = f"{crm.url}/__simulator"
        assert session.get(f"{control}/records", timeout=30).json()["records"][0]["id"] == "1"
        assert session.post(f"{control}/records", data={}, timeout=30).status_code == 400
        assert session.post(f"{control}/records", json={"module": "Leads", "id": "2"}, timeout=30).ok
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = session.post(f"{control}/clock", data='{"advance": 9e8}', headers=form, timeout=30)
        assert answer.json()["now"] > 9e8
        assert (crm.calls, crm.answered, crm.max_concurrent, crm.connections) == ((), 0, 0, 1)
        assert session.post(f"{control}/reset", timeout=30).ok
        assert (list(crm.records), crm.tokens, crm.credits_remaining) == (["1"], {"t"}, 0)
        assert crm.handle(Request(method="GET", path="/crm/v8/org")).status == 429


def test_a_reset_takes_the_place_of_the_old_state_in_one_step(crm: Simulator) -> None:
    lead, seen = crm.add_record("Leads", "7"), []

    def plant(fresh: Engine) -> None:
        seen.append(requests.get(f"{crm.url}/crm/v8/Leads/{lead}", timeout=5).status_code)
        fresh.add_record("Leads", "8")

    crm.reset(plant)
    assert (seen, list(crm.records), crm.calls) == ([200], ["8"], ())
    assert requests.get(f"{crm.url}/crm/v8/Leads/8", timeout=5).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_body_changes_nothing(
    crm: Simulator, session: requests.Session
) -> None:
    lead = crm.add_record("Leads")
    with socket.create_connection(("127.0.0.1", int(crm.url.rpartition(":")[2]))) as client:
        client.sendall(b"DELETE /crm/v8/Leads/%s HTTP/1.1\r\nContent-Length: 9\r\n\r\nab" % lead.encode())
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    session.get(f"{crm.url}/crm/v8/Leads?fields=id")
    assert (crm.writes(lead), len(crm.calls)) == (0, 1)


def test_nothing_is_printed(crm: Simulator, capfd: pytest.CaptureFixture[str]) -> None:
    requests.get(f"{crm.url}/crm/v8/nothing/at/all", timeout=5)
    crm.fault("reset")
    with pytest.raises(requests.ConnectionError):
        requests.get(crm.url, timeout=5)
    crm.stop()
    assert capfd.readouterr() == ("", "")


def _run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=PACKAGE_ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_the_examples_of_the_docstring_work(tmp_path: Path) -> None:
    """The first as a script, the second as a test module."""
    doc = textwrap.dedent((crm_guard.simulator.__doc__ or "").partition("\n")[2])
    first, second = (textwrap.dedent(block) for block in re.findall(r":\n\n((?:    .*\n|\n)+)", doc))
    assert _run(first) == ""
    module = tmp_path / "test_example.py"
    module.write_text(second)
    alone = "os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'"  # what else is installed takes a second to load
    test = f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(module)!r}]))"
    assert "1 passed" in _run(f"import os, sys, pytest; {alone}; {test}")


def test_both_lists_of_options_agree() -> None:
    assert EngineOptions.__annotations__.keys() == {field.name for field in dataclasses.fields(Options)}


def test_it_imports_nothing_of_the_guard() -> None:
    """The simulator is an oracle: no module of it imports from outside its folder."""
    trees = (ast.parse(path.read_text()) for path in Path(crm_guard.simulator.__file__).parent.glob("*.py"))
    imported = []
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom):
            imported.append("crm_guard" if node.level > 1 else str(node.module) if not node.level else "")
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
    assert "threading" in imported
    assert [name for name in imported if name.partition(".")[0] == "crm_guard"] == []
