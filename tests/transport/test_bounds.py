"""What the other side can cost a call, in time and in memory: a server that drips, floods, and never ends."""

import contextlib
import functools
import gzip
import io
import json
import socketserver
import threading
import time
import tracemalloc
import types
import zlib
from dataclasses import replace

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse, Timeout

import crm_guard._transport.probe_thread
from crm_guard import (
    GiveUpReason,
    GuardAdapter,
    GuardSettings,
    NotApprovedError,
    RecordLockedError,
    get_report,
)

MIB = 1024 * 1024
SIZE = 8 * MIB
TICK = 0.01
LOCK = {
    "code": "RECORD_LOCKED",
    "details": {"id": "1", "action": "zia_vision_processing"},
    "message": "Cannot update record that is not approved yet",
    "status": "error",
}
UNAPPROVED = {**LOCK, "code": "NOT_APPROVED", "details": {"id": "1"}}
DONE = {"code": "SUCCESS", "details": {"id": "1"}, "message": "record updated", "status": "success"}
ROW = {"data": [{"Company": "Zylker"}]}


def answer(body, status=200, kind="application/json", **headers):
    """Return a whole HTTP answer."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": kind, "Content-Length": len(body)} | headers
    return head(status, named) + body


def head(status, headers):
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Hostile(socketserver.ThreadingTCPServer):
    """Answers each request with the next of its scripts: functions that are given a way to write.

    Attributes:
        scripts: What is to come; the last one again and again.
        asked: The request lines so far.
        written: Bytes sent so far.
        connections: Connections so far.
        dropped: Set once somebody closed a connection while it was being written to.
    """

    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Connection)
        self.scripts, self.asked, self.written, self.connections = [], [], 0, 0
        self.dropped, self.over = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/crm/v8/Leads"


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.connections += 1
        while line := self.rfile.readline():
            length = 0
            while (field := self.rfile.readline()).strip():
                name, _, value = field.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            server = self.server
            server.asked.append(line.decode().split(" HTTP")[0])
            script = server.scripts.pop(0) if len(server.scripts) > 1 else server.scripts[0]
            try:
                script(self.write)
            except OSError:
                server.dropped.set()
                return

    def write(self, data):
        self.wfile.write(data)
        self.server.written += len(data)
        if self.server.over.is_set():
            raise ConnectionAbortedError


@pytest.fixture
def hostile():
    with Hostile() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join(5)


@pytest.fixture
def session(hostile):
    """A session with a guard whose waits are short."""
    with requests.Session() as made:
        made.guard = GuardAdapter(GuardSettings(timeout=2, wait_initial=0.01, wait_max=0.01, max_inspect_bytes=MIB))
        made.mount("http://", made.guard)
        yield made


def says(*args, **kwargs):
    return lambda write: write(answer(*args, **kwargs))


def drips(beginning, rest=b" " * 1000):
    def script(write):
        write(beginning)
        for byte in rest:
            time.sleep(TICK)
            write(bytes([byte]))

    return script


def floods(beginning, piece):
    def script(write):
        write(beginning)
        while True:
            write(piece)

    return script


CHUNKED = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
LONG = {"Content-Type": "application/json", "Content-Length": 1000}
DRIPS = {
    "body": drips(head(200, LONG)),
    "chunk": drips(head(200, CHUNKED) + b"3e8\r\n"),
    "size of a chunk": drips(head(200, CHUNKED), b"0" * 1000),
    "headers": drips(b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 1000),
    "status line": drips(b"", b"HTTP/1.1 200 " + b"a" * 1000),
    "nothing": drips(b"", b""),
}


def timed(function):
    begin = time.monotonic()
    result = function()
    return result, time.monotonic() - begin


def refused(session, url, kind=NotApprovedError, **options):
    def call():
        with pytest.raises(kind) as caught:
            session.put(url, json=ROW, **options)
        return caught.value

    return timed(call)


class TestADiagnosis:
    @pytest.mark.parametrize("way", DRIPS)
    def test_of_a_server_that_drips_ends_in_time_and_leaves_the_candidates(
        self, hostile, session, monkeypatch, way
    ):
        monkeypatch.setattr(crm_guard._transport.probe_thread, "SECONDS", 0.08)
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400), DRIPS[way]]
        error, seconds = refused(session, hostile.url + "/1", timeout=5)
        assert seconds < 1
        assert error.case is None
        assert len(error.candidates) == 3
        assert error.report.credits_spent == 2

    @pytest.mark.parametrize("way", sorted(set(DRIPS) - {"nothing"}))
    def test_that_is_late_drops_its_connection_and_ends_its_thread(self, hostile, session, monkeypatch, way):
        monkeypatch.setattr(crm_guard._transport.probe_thread, "SECONDS", 0.08)
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400), DRIPS[way]]
        refused(session, hostile.url + "/1", timeout=5)
        assert hostile.dropped.wait(5)
        for thread in session.guard.context.late.values():
            thread.join(5)
            assert not thread.is_alive()

    def test_that_is_late_leaves_its_place_in_the_pool_to_the_next_call(self, hostile, monkeypatch):
        monkeypatch.setattr(crm_guard._transport.probe_thread, "SECONDS", 0.08)
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400), DRIPS["headers"], says({"data": [DONE]})]
        with requests.Session() as session:
            session.mount("http://", GuardAdapter(GuardSettings(), pool_maxsize=1, pool_block=True))
            refused(session, hostile.url + "/1", timeout=5)
            for _ in range(2):
                response, seconds = timed(lambda: session.put(hostile.url + "/1", json=ROW, timeout=5))
                assert (response.status_code, seconds < 1) == (200, True)

    def test_that_is_in_time_leaves_its_connection_to_the_next_call(self, hostile, session):
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400), says({"data": []})] * 3
        hostile.scripts.append(says({"data": [DONE]}))
        for _ in range(3):
            refused(session, hostile.url + "/1")
        assert session.put(hostile.url + "/1", json=ROW).ok
        assert hostile.connections == 1

    def test_through_an_inner_adapter_is_not_begun_while_one_before_it_hangs(self, hostile, monkeypatch):
        monkeypatch.setattr(crm_guard._transport.probe_thread, "SECONDS", 0.08)
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400), DRIPS["headers"], says({"data": [UNAPPROVED]}, 400)]
        with requests.Session() as session, contextlib.closing(HTTPAdapter()) as inner:
            session.mount("http://", GuardAdapter(GuardSettings(), inner=inner))
            for _ in range(3):
                _, seconds = refused(session, hostile.url + "/1", timeout=5)
                assert seconds < 1
        assert [line.split()[0] for line in hostile.asked] == ["PUT", "GET", "PUT", "PUT"]

    def test_takes_no_more_memory_than_an_answer_may_have(self, hostile, session):
        bomb = gzip.compress(bytes(64 * MIB))
        hostile.scripts = [
            says({"data": [UNAPPROVED]}, 400),
            says(bomb, **{"Content-Encoding": "gzip"}),
        ]
        (error, _), peak = measured(lambda: refused(session, hostile.url + "/1"))
        assert error.case is None
        assert peak < 8 * MIB

    def test_of_an_endless_answer_drops_the_connection(self, hostile, session):
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400), floods(head(200, CHUNKED), piece)]
        refused(session, hostile.url + "/1")
        assert hostile.dropped.wait(5)

    def test_can_be_interrupted(self, hostile, session, monkeypatch):
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400), DRIPS["headers"]]

        def interrupted(wake, timeout):
            while len(hostile.asked) < 2:  # until the question has arrived
                hostile.over.wait(0.001)
            raise KeyboardInterrupt

        monkeypatch.setattr(crm_guard._transport.probe_thread.Wake, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            session.put(hostile.url + "/1", json=ROW)
        (found,) = get_report(caught.value).outcomes
        assert (found.code, found.succeeded, found.uncertain) == ("NOT_APPROVED", False, False)
        assert hostile.dropped.wait(5)  # and its connection is cut

    def test_that_can_have_no_thread_leaves_the_candidates(self, hostile, session, monkeypatch):
        class NoThread(threading.Thread):
            def start(self):
                message = "can't start new thread"
                raise RuntimeError(message)

        monkeypatch.setattr(crm_guard._transport.probe_thread, "threading", types.SimpleNamespace(Thread=NoThread))
        hostile.scripts = [says({"data": [UNAPPROVED]}, 400)]
        error, _ = refused(session, hostile.url + "/1")
        assert (len(error.candidates), error.report.credits_spent) == (3, 1)


def measured(function):
    """Return what a function returns, and the most bytes that it had allocated at once."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = function()
        return result, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class Refusing(HTTPAdapter):
    """Refuses a record some times, at great length, and then writes it."""

    def __init__(self, times, size, body):
        super().__init__()
        self.times, self.size, self.body = times, size, body

    def send(self, request, **options):
        self.times -= 1
        said = self.body if self.times >= 0 else {"data": [DONE]}
        self.body = {"data": [LOCK]}
        body = json.dumps(said | {"info": self.padding()}).encode()
        raw = HTTPResponse(
            io.BytesIO(body),
            {"Content-Type": "application/json", "Set-Cookie": "a=" + "b" * 1000},
            200 if self.times < 0 else 400,
            preload_content=False,
        )
        return self.build_response(request, raw)

    def padding(self):
        return "x" * self.size


class TestMemory:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("rows", [1, 2])
    def test_of_a_call_does_not_grow_with_its_attempts(self, clock, rows, stream):
        other = {**DONE, "details": {"id": "2"}}
        body = {"data": [LOCK, other][:rows]}

        def peak(times):
            inner = Refusing(times, MIB // 2, body)
            settings = GuardSettings(timeout=1e6, attempts=100, diagnose=False)
            session = requests.Session()
            session.mount("https://", GuardAdapter(settings, clock=clock, inner=inner))
            sent = {"data": [{"id": "1"}, {"id": "2"}][:rows]}
            response, most = measured(
                lambda: session.put("https://www.zohoapis.com/crm/v8/Leads", json=sent, stream=stream)
            )
            assert get_report(response).attempts == times + 1
            return most

        peak(1)
        assert peak(28) < 1.2 * peak(2)

    def test_of_an_earlier_answer_that_never_ends_is_not_taken(self, hostile, session):
        first = {"data": [LOCK, {**DONE, "details": {"id": "2"}}]}
        page = head(502, {"Content-Type": "text/html", "Connection": "close"})
        hostile.scripts = [says(first, 207), floods(page, b" " * 65536)]
        rows = {"data": [{"id": "1"}, {"id": "2"}]}
        response, seconds = timed(lambda: session.put(hostile.url, json=rows))
        report = get_report(response)
        assert (report.reason, report.error.status) == (GiveUpReason.FOLLOW_UP, 502)
        assert [found.succeeded for found in report.outcomes] == [False, True]
        assert hostile.dropped.wait(5)
        assert seconds < 2
        assert hostile.written < 16 * MIB  # what fits into the buffers of two sockets

    @pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("refusals", [0, 1])
    def test_of_a_body_is_bounded_after_decompression(self, hostile, session, refusals, stream, chunked, encoding):
        bomb = bomb_of(SIZE, encoding)
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
            whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(bomb), bomb)
        else:
            headers["Content-Length"], whole = len(bomb), bomb
        hostile.scripts = [
            *[says({"data": [LOCK]}, 400)] * refusals,
            lambda write: write(head(200, headers) + whole),
        ]
        request = session.prepare_request(requests.Request("PUT", hostile.url + "/1", json=ROW))
        response, peak = measured(lambda: session.guard.send(request, stream=stream))
        assert peak < 4 * MIB
        assert sum(map(len, response.iter_content(MIB))) == SIZE
        response.close()


@functools.cache
def bomb_of(size, encoding):
    data = bytes(size)
    for name in encoding.split(", "):
        data = gzip.compress(data) if name == "gzip" else zlib.compress(data)
    return data


class TestAStream:
    @pytest.mark.parametrize("timeout", [0.1, (5, 0.1), Timeout(total=0.1), Timeout(read=0.1)], ids=str)
    @pytest.mark.parametrize("headers", [LONG, CHUNKED], ids=["length", "chunked"])
    def test_that_drips_is_looked_into_no_longer_than_the_read_timeout(self, hostile, session, headers, timeout):
        body = json.dumps({"data": [LOCK]}).encode().ljust(1000)
        size = b"3e8\r\n" if headers is CHUNKED else b""
        hostile.scripts = [drips(head(400, headers) + size, body)]
        response, seconds = timed(lambda: session.put(hostile.url + "/1", json=ROW, stream=True, timeout=timeout))
        assert seconds < 1
        assert response.status_code == 400
        assert response.raw.read(5) == body[:5]
        response.close()

    def test_without_a_timeout_is_looked_into_to_its_end(self, hostile, session):
        headers = {**LONG, "Content-Length": len(LOCKED_BODY)}
        hostile.scripts = [drips(head(400, headers) + LOCKED_BODY[:-5], LOCKED_BODY[-5:])]
        session.guard.context = replace(session.guard.context, settings=GuardSettings(timeout=0))
        error, _ = refused(session, hostile.url + "/1", RecordLockedError, stream=True)
        assert error.response.content == LOCKED_BODY


LOCKED_BODY = json.dumps({"data": [LOCK]}).encode()


def test_an_answer_that_breaks_while_it_is_made_usable_leaves_the_report(hostile, session):
    policy = GuardSettings(timeout=2, wait_initial=0.01, wait_max=0.01, raise_on="partial")
    session.guard.context = replace(session.guard.context, settings=policy)
    page = head(502, {"Content-Type": "text/html", "Content-Length": 100})
    hostile.scripts = [says({"data": [LOCK]}, 400), lambda write: (write(page + b"Bad Gate"), breaks())]
    request = session.prepare_request(requests.Request("PUT", hostile.url + "/1", json=ROW))
    with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
        session.guard.send(request)
    report = get_report(caught.value)
    assert (report.reason, report.error.status, report.outcomes[0].uncertain) == (GiveUpReason.FOLLOW_UP, 502, True)


def breaks():
    raise ConnectionAbortedError


def test_p4_a_call_takes_no_longer_than_its_sends_its_budget_and_the_diagnosis(hostile, session, monkeypatch):
    """The sentence in the README: the first send, `timeout`, a send that began within it, and the diagnosis."""
    send, budget, diagnosis = 0.1, 0.3, 0.1
    monkeypatch.setattr(crm_guard._transport.probe_thread, "SECONDS", diagnosis)
    policy = GuardSettings(timeout=budget, wait_initial=0.02, wait_max=0.02, raise_on="never")
    session.guard.context = replace(session.guard.context, settings=policy)

    def slowly(script):
        def late(write):
            time.sleep(send)
            script(write)

        return late

    locked, unapproved = says({"data": [LOCK]}, 400), says({"data": [UNAPPROVED]}, 400)
    hostile.scripts = [slowly(locked), slowly(unapproved), DRIPS["headers"]]
    response, seconds = timed(lambda: session.put(hostile.url + "/1", json=ROW, timeout=1))
    assert get_report(response).outcomes[0].code == "NOT_APPROVED"
    assert hostile.asked[-1].startswith("GET ")
    assert seconds < send + budget + send + diagnosis + 0.3
