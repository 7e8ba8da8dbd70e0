"""Bodies read with a limit and put back, copies of requests, responses made anew."""

import gzip
import io
import json
import math
import random
import socket
import struct
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse, Timeout
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError

from crm_guard import GuardAdapter, GuardSettings, RecordLockedError
from crm_guard._base.retry_after import seconds_to_wait
from crm_guard._protocol.merge import Merged
from crm_guard._transport import bodies, http_copies

LIMIT = 2000
LOCK = {
    "code": "RECORD_LOCKED",
    "details": {"id": "1", "action": "zia_vision_processing"},
    "message": "Cannot update record that is not approved yet",
    "status": "error",
}
SMALL = json.dumps({"data": [{"code": "SUCCESS", "status": "success"}]}).encode()
LARGE = bytes(range(256)) * 4 + b'RECORD_LOCKED"' * 1000
REFUSAL = json.dumps({"data": [LOCK]}).encode()
CHUNK = 333


def chunked(body, size=CHUNK):
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in cut(body, size)) + b"0\r\n\r\n"


def cut(body, size):
    return [body[at : at + size] for at in range(0, len(body), size)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body would wait 40 ms for an acknowledgement of the head

    def setup(self):
        super().setup()
        self.server.connections += 1

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, wire, end = self.server.script
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(wire)
        self.wfile.flush()
        if end == "stalls":
            self.server.released.wait(10)
        if end != "stays":
            self.close_connection = True
        if end == "resets":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    do_PUT = do_HEAD = answer  # noqa: N815

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Say nothing of connections that a test breaks."""


@pytest.fixture(scope="module")
def running():
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join(5)


@pytest.fixture
def server(running):
    """A server on the loopback interface that answers what its `script` says: status, headers, bytes, end."""
    running.connections = 0
    running.released = threading.Event()
    running.url = f"http://127.0.0.1:{running.server_port}/crm/v8/Leads/1"
    yield running
    running.released.set()


@pytest.fixture
def serve(server):
    """Sets the answer of the server, in one of the ways in which a body can travel."""

    def script(body, way="chunked", *, status=200, kind="application/json", end="stays", drop=0):
        headers = {"Content-Type": kind}
        if "gzip" in way:
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        if "length" in way:
            headers["Content-Length"] = str(len(body))
        if "chunked" in way:
            body, headers["Transfer-Encoding"] = chunked(body), "chunked"
        if "until closed" in way:
            headers["Connection"], end = "close", "closes"
        server.script = (status, headers, body[: len(body) - drop], end)

    return script


@pytest.fixture
def session():
    with requests.Session() as made:
        made.mount("http://", GuardAdapter(GuardSettings(max_inspect_bytes=LIMIT), pool_maxsize=1, pool_block=True))
        yield made


@pytest.fixture
def plain():
    with requests.Session() as made:
        made.mount("http://", HTTPAdapter())
        yield made


WAYS = ["length", "chunked", "until closed", "gzip length", "gzip chunked", "gzip until closed"]
BODIES = {
    "small": SMALL,
    "empty": b"",
    "large": LARGE,
    "at the limit": b" " * LIMIT,
    "above it": b" " * (LIMIT + 1),
}
READINGS = {
    "content": lambda response: response.content,
    "iter_content": lambda response: b"".join(response.iter_content(100)),
    "iter_content as it comes": lambda response: b"".join(response.iter_content(None)),
    "iter_lines": lambda response: list(response.iter_lines(chunk_size=50)),
    "raw.read": lambda response: response.raw.read(),
    "raw.read in pieces": lambda response: b"".join(iter(lambda: response.raw.read(97), b"")),
    "raw.read decoded": lambda response: response.raw.read(decode_content=True),
    "raw.stream": lambda response: b"".join(response.raw.stream(100, decode_content=True)),
    "raw.read1": lambda response: b"".join(iter(lambda: response.raw.read1(100), b"")),
    "readinto": lambda response: bytes(memoryview(buffer := bytearray(50))[: response.raw.readinto(buffer)]),
    "text": lambda response: response.text,
}


class TestAStreamThatWasLookedInto:
    @pytest.mark.parametrize("reading", READINGS)
    @pytest.mark.parametrize("body", BODIES)
    @pytest.mark.parametrize("way", WAYS)
    def test_p1_gives_what_it_would_have_given(self, serve, server, session, plain, way, body, reading):
        serve(BODIES[body], way)
        answers = []
        for client in (plain, session):
            response = client.put(server.url, stream=True)
            answers.append(
                (
                    READINGS[reading](response),
                    response.headers.items() - {("Date", "")},
                    response.raw.headers.get("Content-Encoding"),
                )
            )
            response.close()
        assert answers[0][0] == answers[1][0]
        assert answers[0][2] == answers[1][2]

    @pytest.mark.parametrize("way", WAYS)
    def test_is_waited_out_where_it_holds_a_lock(self, serve, server, session, way):
        guard = session.get_adapter("http://")
        guard.context = replace(guard.context, settings=GuardSettings(timeout=0, max_inspect_bytes=LIMIT))
        serve(REFUSAL, way, status=400)
        with pytest.raises(RecordLockedError) as caught:
            session.put(server.url, stream=True)
        assert caught.value.response.json() == {"data": [LOCK]}

    @pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("way", ["length", "chunked", "gzip chunked"])
    def test_leaves_its_connection_to_the_next_call(self, serve, server, session, way, body):
        serve(body, way)
        for _ in range(3):
            assert session.put(server.url, stream=True).content == body
        assert server.connections == 1

    @pytest.mark.parametrize("way", ["length", "chunked", "gzip chunked", "until closed"])
    def test_frees_its_place_in_the_pool_when_closed_unread(self, serve, server, session, way):
        serve(LARGE, way)
        for _ in range(3):  # the pool has one place and blocks
            with session.put(server.url, stream=True) as response:
                assert response.status_code == 200

    def test_frees_its_place_in_the_pool_when_closed_half_read(self, serve, server, session):
        serve(LARGE, "chunked")
        for _ in range(3):
            with session.put(server.url, stream=True) as response:
                assert next(response.iter_content(5000)) == LARGE[:5000]

    def test_is_not_read_further_than_the_limit(self, serve, server, session):
        serve(b"x" * (LIMIT + 1), "chunked", drop=5, end="stalls")
        response = session.put(server.url, stream=True, timeout=5)
        assert response.raw.read(LIMIT) == b"x" * LIMIT
        response.close()

    def test_that_announces_more_than_the_limit_is_not_read_at_all(self, serve, server, session):
        serve(LARGE, "length", drop=len(LARGE), end="stalls")
        response = session.put(server.url, stream=True, timeout=5)
        assert response.raw.tell() == 0
        response.close()

    def test_that_unpacks_to_more_than_the_limit_is_not_unpacked(self, serve, server, session):
        bomb = b" " * 20_000_000
        serve(bomb, "gzip length")
        response = session.put(server.url, stream=True)
        assert len(response.content) == len(bomb)

    def test_whose_packed_beginning_unpacks_to_less_than_the_limit_is_not_taken_for_whole(self):
        body = gzip.compress(random.Random(1).randbytes(LIMIT - 5))
        assert len(body) > LIMIT + 1
        response = requests.Response()
        response.headers["Content-Encoding"] = "gzip"
        response.raw = HTTPResponse(io.BytesIO(body), headers=response.headers, preload_content=False)
        assert bodies.bounded_body(response, LIMIT, unread=True) is None
        assert len(response.content) == LIMIT - 5

    def test_that_answers_a_head_has_no_body_whatever_it_announces(self, server, session):
        server.script = (400, {"Content-Type": "application/json", "Content-Length": "50"}, b"", "stays")
        assert session.head(server.url, stream=True).content == b""

    def test_still_has_the_cookies_of_the_answer(self, serve, server, session):
        serve(SMALL, "chunked")
        status, headers, wire, end = server.script
        server.script = (status, headers | {"Set-Cookie": "crmcsr=abc; Path=/"}, wire, end)
        session.put(server.url, stream=True)
        assert session.cookies["crmcsr"] == "abc"


def what_happens(response, size):
    """Read until the end or an error; return the bytes, and the kind of error."""
    got = b""
    try:
        for piece in response.iter_content(size):
            got += piece
    except requests.RequestException as exc:
        return got, type(exc)
    return got, None


class TestAStreamThatBreaks:
    @pytest.mark.parametrize("size", [100, None])
    @pytest.mark.parametrize("body", [SMALL * 5, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("way", ["chunked", "length"])
    @pytest.mark.parametrize("end", ["closes", "resets"])
    def test_breaks_where_and_how_it_would_have_broken(self, serve, server, session, plain, way, body, end, size):
        serve(body, way, end=end, drop=len(body) // 4)
        seen = [what_happens(client.put(server.url, stream=True), size) for client in (plain, session)]
        assert seen[0][1] is seen[1][1]
        assert seen[0][1] is not None
        assert body.startswith(seen[1][0])
        if end == "closes":  # a chunk that did not come whole may be missing
            assert abs(len(seen[0][0]) - len(seen[1][0])) < CHUNK

    def test_and_is_read_at_once_is_an_error_and_not_a_short_body(self, serve, server, session):
        serve(SMALL * 5, "chunked", end="closes", drop=20)
        response = session.put(server.url, stream=True)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            response.content  # noqa: B018

    def test_and_is_read_in_one_piece_is_an_error_and_not_a_short_body(self, serve, server, session):
        serve(SMALL * 20, "chunked", end="closes", drop=20)
        raw = session.put(server.url, stream=True).raw
        with pytest.raises(ProtocolError, match="Connection broken"):
            raw.read()
        assert raw.read(0) == b""
        assert raw.read(CHUNK) == (SMALL * 20)[:CHUNK]

    def test_because_it_stalls_times_out_in_the_hands_of_the_caller(self, serve, server, session):
        serve(SMALL, "chunked", end="stalls", drop=7)
        response = session.put(server.url, stream=True, timeout=0.05)
        with pytest.raises(requests.exceptions.ConnectionError):
            list(response.iter_content(10))

    def test_in_its_compression_is_a_decoding_error_of_the_caller(self, serve, server, session):
        serve(SMALL, "length")
        status, headers, wire, end = server.script
        server.script = (status, headers | {"Content-Encoding": "gzip"}, wire, end)
        response = session.put(server.url, stream=True)
        with pytest.raises(requests.exceptions.ContentDecodingError):
            response.content  # noqa: B018

    def test_after_the_first_break_frees_its_place_in_the_pool(self, serve, server, session):
        for _ in range(3):
            serve(SMALL * 5, "chunked", end="closes", drop=20)
            response = session.put(server.url, stream=True)
            assert what_happens(response, 10)[1] is not None
            response.close()

    def test_a_call_that_is_read_at_once_fails_as_it_would_have_failed(self, serve, server, session):
        serve(SMALL * 5, "chunked", end="closes", drop=20)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.put(server.url)


def answered(content):
    response = requests.Response()
    response.status_code = 400
    response._content = content
    response._content_consumed = True
    response.raw = HTTPResponse(io.BytesIO(), preload_content=False)
    return response


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_another_adapter_has_read_already_is_read_from_it(stream):
    response = answered(REFUSAL)
    assert bodies.bounded_body(response, LIMIT, unread=stream) == REFUSAL
    assert bodies.bounded_body(response, 3, unread=stream) is None
    assert bodies.bounded_body(answered(None), LIMIT, unread=stream) is None


def test_a_body_that_nobody_wants_is_read_or_else_closed():
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError

    response = requests.Response()
    response.raw = Broken()
    http_copies.discard(response)
    assert response.raw.closed


def prepared(body=None, **options):
    return requests.Request("PUT", "https://www.zohoapis.com/crm/v8/Leads", data=body, **options).prepare()


class Odd(io.BytesIO):
    """A file of somebody's own making, with errors of its own."""

    def read(self, *args):
        raise LookupError


class Pipe(io.BytesIO):
    """A file that knows where it stands and cannot go back."""

    def seek(self, *args):
        raise OSError


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "seen", "again"),
        [
            (None, None, True),
            (b"abc", b"abc", True),
            ("\u00e4", "\u00e4".encode(), True),
            (io.BytesIO(b"abc"), b"abc", True),
            (io.StringIO("\u00e4"), "\u00e4".encode(), True),
            ((part for part in (b"a", b"b")), None, False),
            (bytearray(b"abc"), None, False),
        ],
        ids=["none", "bytes", "text", "file", "text file", "generator", "bytearray"],
    )
    def test_are_seen_and_sent_again_where_that_is_safe(self, body, seen, again):
        request = prepared()
        request.prepare_body(body, None)
        assert http_copies.body_bytes(request) == seen
        assert http_copies.replayable(request) is again

    def test_in_files_are_read_from_where_they_stood_and_left_ready(self):
        file = io.BytesIO(b"--abc")
        file.seek(2)
        request = prepared(file)
        assert http_copies.body_bytes(request) == b"abc"
        assert http_copies.copy_of(request, None, None).body.read() == b"abc"

    def test_in_closed_files_cannot_be_sent_again(self):
        file = io.BytesIO(b"abc")
        request = prepared(file)
        file.close()
        assert not http_copies.replayable(request)
        assert http_copies.body_bytes(request) is None

    def test_in_files_that_do_not_go_back_are_not_seen(self):
        assert http_copies.body_bytes(prepared(Pipe(b"abc"))) is None

    def test_in_files_that_cannot_be_read_again_cost_no_answer(self):
        assert http_copies.body_bytes(prepared(Odd(b"abc"))) is None


class TestCopies:
    def test_p6_share_nothing_that_can_change_with_the_original(self):
        request = prepared(b"abc", headers={"X-A": "1"}, hooks={"response": print}, cookies={"a": "b"})
        copy = http_copies.copy_of(request, None, None)
        copy.headers["X-A"] = "2"
        copy.register_hook("response", repr)
        copy._cookies.set("a", "c")
        assert (request.headers["X-A"], request.hooks, request._cookies["a"]) == ("1", {"response": [print]}, "b")
        assert copy.body == b"abc"

    def test_with_another_body_have_its_length(self):
        request = prepared(iter([b"abc"]))
        assert request.headers["Transfer-Encoding"] == "chunked"
        copy = http_copies.copy_of(request, "https://www.zohoapis.com/crm/v8/Leads?ids=1", b"xy")
        assert (copy.body, copy.headers["Content-Length"], "Transfer-Encoding" in copy.headers) == (
            b"xy",
            "2",
            False,
        )
        assert copy.url.endswith("?ids=1")


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "wanted"),
        [
            ("3", 3.0),
            (" 3 ", 3.0),
            ("0", 0.0),
            ("soon", None),
            ("", None),
            (None, None),
            ("-3", None),
            ("1.5", None),
            ("9" * 5000, None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_is_seconds_or_nothing(self, value, wanted):
        response = requests.Response()
        response.headers = {} if value is None else {"Retry-After": value}
        assert seconds_to_wait(response.headers.get("Retry-After")) == wanted

    def test_of_absurd_size_is_no_endless_wait(self):
        assert seconds_to_wait("9" * 400) in {None, 21_600.0}  # newer releases of urllib3 have a ceiling

    def test_may_be_a_date(self):
        response = requests.Response()
        response.headers = {"Retry-After": formatdate(time.time() + 100, usegmt=True)}
        assert 90 < seconds_to_wait(response.headers["Retry-After"]) <= 100


class TestTheCallersTimeout:
    @pytest.mark.parametrize(
        ("given", "wanted"),
        [(None, 10), (3, 3), (30, 10), (0.5, 0.5), ((3, None), (3, 10)), ((30, 2.5), (10, 2.5)), (math.inf, 10)],
    )
    def test_is_capped_in_each_part(self, given, wanted):
        assert bodies.capped_timeout(given, 10) == wanted

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            (Timeout(total=5), (5, 5)),
            (Timeout(total=50), (10, 10)),
            (Timeout(connect=3, read=20), (3, 10)),
            (Timeout(total=5, read=1), (5, 1)),
            (Timeout(total=None), (10, 10)),
            (Timeout(), (10, 10)),
        ],
    )
    def test_is_capped_in_each_part_as_urllib3_has_it(self, given, wanted):
        capped = bodies.capped_timeout(given, 10)
        assert capped.connect_timeout == wanted[0]
        assert capped.read_timeout == pytest.approx(wanted[1], abs=0.1)

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            (None, None),
            (3, 3),
            ((5, 0.5), 0.5),
            ((5, None), None),
            (Timeout(total=5), 5),
            (Timeout(total=5, read=1), 1),
            (Timeout(read=2), 2),
            (Timeout(connect=2), None),
            (Timeout(total=None), None),
            ("5", None),
        ],
    )
    def test_for_reading_is_found_in_every_form(self, given, wanted):
        found = bodies.read_timeout(given)
        assert found == (wanted if wanted is None else pytest.approx(wanted, abs=0.1))


def test_only_an_error_of_connecting_proves_that_nothing_was_sent():
    refused = requests.ConnectionError(MaxRetryError(None, "/", NewConnectionError(None, "refused")))
    broken = requests.ConnectionError(MaxRetryError(None, "/", ReadTimeoutError(None, "/", "slow")))
    assert [http_copies.never_sent(error) for error in (refused, requests.ConnectTimeout())] == [True, True]
    assert not any(
        http_copies.never_sent(error) for error in (broken, requests.ReadTimeout(), OSError(), KeyboardInterrupt())
    )


class TestAResponseMadeAnew:
    @pytest.fixture
    def remade(self, serve, server, plain):
        def make(way="gzip chunked", **options):
            serve(REFUSAL, way, status=400)
            latest = plain.put(server.url)
            status, trail = options.get("status", 207), http_copies.Trail()
            vars(trail).update(content_type=options.get("kind"), _reasons={status: options.get("reason")})
            merged = Merged(status, b'{"a":1}')
            new = http_copies.remade(HTTPAdapter().build_response, latest.request, latest, merged, trail)
            return latest, new

        return make

    def test_has_the_new_body_with_headers_that_fit(self, remade):
        latest, new = remade()
        assert (new.json(), new.status_code, new.reason) == ({"a": 1}, 207, "Multi-Status")
        assert new.headers["Content-Length"] == "7"
        assert not {"Content-Encoding", "Transfer-Encoding"} & set(new.headers)
        assert new.headers["Content-Type"] == latest.headers["Content-Type"]
        assert (new.url, new.request) == (latest.url, latest.request)

    def test_keeps_the_reason_that_crm_gave(self, remade):
        assert remade(reason="MULTI")[1].reason == "MULTI"

    def test_has_the_content_type_of_the_items_where_the_last_answer_had_none(self, remade):
        assert remade(kind="application/json;charset=utf-8")[1].headers["Content-Type"].endswith("=utf-8")

    @pytest.mark.parametrize("reading", READINGS)
    def test_can_be_read_in_every_way(self, remade, reading):
        assert READINGS[reading](remade()[1]) in (b'{"a":1}', '{"a":1}', [b'{"a":1}'])

    def test_of_an_unknown_status_has_no_reason(self, remade):
        assert remade(status=299)[1].reason == ""

    def test_can_be_made_of_a_response_without_a_raw_one(self):
        latest = answered(REFUSAL)
        latest.raw = None
        latest.headers["X-A"] = "1"
        new = http_copies.remade(
            HTTPAdapter().build_response, prepared(), latest, Merged(200, b"{}"), http_copies.Trail()
        )
        assert (new.json(), new.headers["X-A"], new.reason) == ({}, "1", "OK")


class TestCookiesOfEarlierAttempts:
    def ask(self, serve, server, plain, *cookies):
        serve(SMALL)
        status, headers, wire, end = server.script
        server.script = (status, headers | ({"Set-Cookie": cookies[0]} if cookies else {}), wire, end)
        return plain.put(server.url)

    def test_reach_the_session_and_the_last_word_wins(self, serve, server, plain):
        first = self.ask(serve, server, plain, "a=first; Path=/")
        second = self.ask(serve, server, plain, "b=second; Path=/")
        last = self.ask(serve, server, plain, "a=last; Path=/")
        trail = http_copies.Trail()
        trail.drop(first)
        trail.drop(second)
        trail.carry_cookies(last)
        assert dict(last.cookies) == {"a": "last", "b": "second"}

    def test_that_are_none_change_nothing(self, serve, server, plain):
        first, last = self.ask(serve, server, plain), self.ask(serve, server, plain, "a=last; Path=/")
        trail = http_copies.Trail()
        trail.drop(first)
        trail.carry_cookies(last)
        trail.drop(last)
        trail.carry_cookies(answered(b""))
        assert dict(last.cookies) == {"a": "last"}
