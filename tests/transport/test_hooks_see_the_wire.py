"""Response hooks see what they see with the stock adapter: a body that is still to be read, and its connection."""

import base64
import gzip
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import requests_ntlm
import spnego
import vcr
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.exceptions import ProtocolError

from crm_guard import GuardAdapter, GuardSettings, get_report
from crm_guard._transport import bodies

OK = {"data": [{"code": "SUCCESS", "details": {"id": "1"}, "message": "", "status": "success"}]}
LOCK = {
    "data": [
        {
            "code": "RECORD_LOCKED",
            "details": {"id": "1", "action": "zia_vision_processing"},
            "message": "",
            "status": "error",
        }
    ]
}
MORE = {"data": OK["data"] * 5_000}
QUICK = GuardSettings(wait_initial=0.01, wait_max=0.02)


class Handler(BaseHTTPRequestHandler):
    """Answers with what the server was given, in the framing that it was given."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body would wait 40 ms for an acknowledgement of the head

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        script = self.server.script
        status, body, framing, *more = script.pop(0) if len(script) > 1 else script[0]
        self.server.seen.append((self.client_address, dict(self.headers)))
        raw = json.dumps(body).encode()
        if "gzip" in framing:
            raw = gzip.compress(raw)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in more[0].items() if more else ():
            self.send_header(name, value)
        if "gzip" in framing:
            self.send_header("Content-Encoding", "gzip")
        if "chunked" in framing:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            pieces = [raw[at : at + 1000] for at in range(0, len(raw), 1000)]
            chunks = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
            self.wfile.write(b"".join([*chunks, b"0\r\n\r\n"]))
        else:
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[:1000] if "cut" in framing else raw)
            self.close_connection = "cut" in framing

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def one_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.url = f"http://127.0.0.1:{server.server_port}/crm/v8/Leads/1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def server(one_server):
    one_server.RequestHandlerClass = Handler
    one_server.script, one_server.seen = [(200, OK, "length")], []
    return one_server


@pytest.fixture(params=["stock", "guard"])
def session(request):
    """A session with the stock adapter, and one with the guard: each test holds for both."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter() if request.param == "stock" else GuardAdapter(QUICK))
        yield session


FRAMINGS = ["length", "chunked", "length gzip", "chunked gzip"]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("stream", [False, True])
class TestAHook:
    def test_finds_the_body_unread(self, server, session, framing, stream):
        server.script = [(200, OK, framing)]
        found = []

        def read(response, **_):
            found.append(response.raw.read(decode_content=True))

        response = session.put(server.url, json=OK, hooks={"response": read}, stream=stream)
        assert json.loads(found[0]) == OK
        assert response.content == b"", "the hook has taken it"

    def test_may_read_the_content_and_leave_it_to_the_caller(self, server, session, framing, stream):
        server.script = [(200, MORE, framing)]
        found = []
        response = session.put(
            server.url, hooks={"response": lambda response, **_: found.append(response.json())}, stream=stream
        )
        assert response.json() == found[0] == MORE

    def test_reaches_the_connection_until_the_body_was_read(self, server, session, framing, stream):
        server.script = [(200, MORE, framing)]
        found = []

        def look(response, **_):
            found.append(response.raw.connection.sock.getpeername())
            response.content  # noqa: B018
            found.append(response.raw.connection)

        session.put(server.url, hooks={"response": look}, stream=stream)
        assert found == [("127.0.0.1", server.server_port), None]

    def test_that_looks_away_costs_no_connection(self, server, session, framing, stream):
        server.script = [(200, MORE, framing)]
        for _ in range(3):
            session.put(server.url, hooks={"response": lambda *_, **__: None}, stream=stream).content  # noqa: B018
        assert len({address for address, _ in server.seen}) == 1

    def test_may_drain_or_close_what_it_was_given(self, server, session, framing, stream):
        server.script = [(200, OK, framing)]
        for act in ("close", "drain_conn"):
            session.put(
                server.url, hooks={"response": lambda r, act=act, **_: getattr(r.raw, act)()}, stream=stream
            )
        assert session.put(server.url).json() == OK

    def test_sees_the_answer_of_a_resend_in_the_same_way(self, server, framing, stream):
        server.script = [(400, LOCK, framing), (200, OK, framing)]
        found = []

        def read(response, **_):
            found.append(
                (
                    response.status_code,
                    response.raw.connection is not None,
                    json.loads(response.raw.read(decode_content=True)),
                )
            )

        with requests.Session() as session:
            session.mount("http://", GuardAdapter(QUICK))
            session.put(server.url, json=OK, hooks={"response": read}, stream=stream)
        assert found == [(200, True, OK)]

    def test_sees_a_refusal_that_raises_nothing(self, server, framing, stream):
        refused = {"data": [LOCK["data"][0] | {"code": "NOT_APPROVED", "details": {"id": "1"}}]}
        server.script = [(400, refused, framing)]
        found = []
        with requests.Session() as session:
            session.mount("http://", GuardAdapter(GuardSettings(raise_on="never", diagnose=False)))
            response = session.put(
                server.url,
                hooks={"response": lambda r, **_: found.append(json.loads(r.raw.read(decode_content=True)))},
                stream=stream,
            )
        assert found == [refused]
        assert get_report(response).blocked


class TestWhatElseAHookFinds:
    def seen(self, session, server, look):
        found = []
        session.put(server.url, json=OK, hooks={"response": lambda r, **_: found.append(look(r.raw))})
        return found

    def test_is_the_address_and_the_version(self, server, session):
        found = self.seen(
            session, server, lambda raw: (raw.url, raw.geturl(), getattr(raw, "version_string", None))
        )
        assert found == [
            ("/crm/v8/Leads/1", "/crm/v8/Leads/1", getattr(HTTPResponse(), "version_string", None) and "HTTP/1.1")
        ]

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_is_closed_once_it_was_read(self, server, session, framing):
        server.script = [(200, OK, framing)]
        found = self.seen(session, server, lambda raw: (raw.closed, raw.read() != b"", raw.closed, raw.connection))
        assert found == [(False, True, True, None)]

    def test_that_breaks_breaks_once(self, session, server):
        server.script = [(200, MORE, "cut")]
        failures = []

        def read(response, **_):
            try:
                response.raw.read()
            except ProtocolError as error:
                failures.append(error)

        content = session.put(server.url, hooks={"response": read}).content
        assert json.dumps(MORE).encode().startswith(content), "what is left of it, without a second failure"
        assert len(failures) == 1


def test_what_is_read_ahead_is_put_back_where_it_began():
    raw = io.BytesIO(b"before" + json.dumps(OK).encode())
    raw.seek(6)
    response = requests.Response()
    response.raw = raw
    assert json.loads(bodies.bounded_body(response, 10_000, unread=True)) == OK
    assert raw.tell() == 6


class TestWithoutAHook:
    def test_the_body_is_read_as_a_session_does(self, server):
        class Counting(GuardAdapter):
            def build_response(self, request, raw):
                built.append(raw)
                return super().build_response(request, raw)

        built = []
        with requests.Session() as session:
            session.mount("http://", Counting(QUICK))
            response = session.put(server.url, json=OK)
        assert response.raw is built[0], "no wrapper where nobody looks"


class TestAChallenge:
    @pytest.mark.parametrize("status", [401, 407])
    @pytest.mark.parametrize("first", [[], [(400, LOCK, "length")]], ids=["at once", "of a resend"])
    def test_is_not_even_read_where_a_hook_may_need_it(self, server, status, first):
        server.script = [*first, (status, LOCK, "length")]
        found = []

        def look(response, **_):
            found.append(response.raw._fp.fp.raw._sock.getpeername())  # as requests_ntlm does
            found.append(json.loads(response.raw.read()))

        with requests.Session() as session:
            session.mount("http://", GuardAdapter(QUICK))
            session.put(server.url, json=OK, hooks={"response": look})
        assert found == [("127.0.0.1", server.server_port), LOCK]


class NtlmHandler(Handler):
    """Asks for NTLM with a JSON 401, as a gateway before CRM would, and checks the connection that answers."""

    def do_PUT(self):
        word = self.headers.get("Authorization", "").removeprefix("NTLM ")
        message = base64.b64decode(word) if word else b""
        kind = int.from_bytes(message[8:12], "little") if message else 0
        body = {"code": "INVALID_TOKEN", "details": {}, "message": "", "status": "error"}
        if kind == 1:
            self.server.legs.append(self.client_address)
            challenge = base64.b64encode(self.server.challenge(self.client_address, message)).decode()
            self.server.script = [(401, body, "length", {"WWW-Authenticate": f"NTLM {challenge}"})]
        elif kind == 3:
            self.server.legs.append(self.client_address)
            self.server.script = [(200, OK, "length")]
        else:
            self.server.script = [(401, body, "length", {"WWW-Authenticate": "NTLM"})]
        super().do_PUT()


class TestNtlm:
    """The real `requests_ntlm`, which looks for the socket below the body of a 401."""

    @pytest.fixture
    def ntlm_server(self, server, tmp_path, monkeypatch):
        users = tmp_path / "users"
        users.write_text("DOMAIN:user:password\n")
        monkeypatch.setenv("NTLM_USER_FILE", str(users))
        contexts = {}

        def challenge(address, negotiate):
            options = spnego.NegotiateOptions.use_ntlm
            contexts[address] = spnego.server(protocol="ntlm", options=options)
            return contexts[address].step(negotiate)

        server.RequestHandlerClass, server.challenge, server.legs = NtlmHandler, challenge, []
        return server

    def test_gets_through_on_one_connection(self, ntlm_server, session):
        session.auth = requests_ntlm.HttpNtlmAuth("DOMAIN\\user", "password")
        response = session.put(ntlm_server.url, json=OK)
        assert (response.status_code, response.json()) == (200, OK)
        assert len(ntlm_server.legs) == 2
        assert len(set(ntlm_server.legs)) == 1, "NTLM authenticates a connection"
        assert [earlier.status_code for earlier in response.history] == [401, 401]


class TestVcr:
    """The real vcrpy, whose raw answers are no urllib3 responses."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("hooked", [False, True])
    def test_a_recording_and_its_replay_leave_the_body_to_be_read(self, server, session, tmp_path, stream, hooked):
        hooks = {"response": lambda *_, **__: None} if hooked else {}
        for _ in ("recorded", "replayed"):
            with vcr.use_cassette(str(tmp_path / "tape.yaml"), record_mode="once"):
                response = session.put(server.url, json=OK, stream=stream, hooks=hooks)
                body = response.raw.read() if stream else response.content
                assert json.loads(body) == OK
        assert len(server.seen) == 1

    def test_a_lock_on_tape_is_waited_out(self, server, tmp_path):
        server.script = [(400, LOCK, "length"), (200, OK, "length")]
        for _ in ("recorded", "replayed"):
            with (
                vcr.use_cassette(str(tmp_path / "tape.yaml"), record_mode="once"),
                requests.Session() as session,
            ):
                session.mount("http://", GuardAdapter(QUICK))
                response = session.put(server.url, json=OK, stream=True)
                assert (response.status_code, json.loads(response.raw.read())) == (200, OK)
                assert get_report(response).attempts == 2
        assert len(server.seen) == 2
