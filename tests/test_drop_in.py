"""Whatever the stock adapter does, the guard does: seen from a session, and with the mocks of `responses`."""

import contextlib
import copy
import json
import pickle
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import responses
from requests.adapters import HTTPAdapter
from requests.auth import HTTPDigestAuth
from urllib3 import Retry

from crm_guard import (
    ApprovalCase,
    GuardAdapter,
    GuardSettings,
    NotApprovedError,
    RecordLockedError,
    get_report,
    install,
    load_settings,
    mount_guard,
)
from crm_guard.locks import Unshared
from crm_guard.simulator import Simulator

ROW = {"data": [{"Company": "Zylker"}]}
LOCKED = {
    "code": "RECORD_LOCKED",
    "details": {"id": "111112000000075003", "action": "zia_vision_processing"},
    "message": "Cannot update record that is not approved yet",
    "status": "error",
}
REFUSED = {**LOCKED, "code": "NOT_APPROVED", "details": {"id": "111112000000075003"}}
APPLIED = {**LOCKED, "code": "SUCCESS", "details": {"id": "111112000000075003"}, "status": "success"}
URL = "https://www.zohoapis.com/crm/v8/Leads/111112000000075003"


@pytest.fixture
def session(crm, clock):
    with requests.Session() as made:
        mount_guard(made, crm.url, clock=clock)
        yield made


@pytest.fixture
def lead(crm):
    return crm.add_record("Leads", locked_for=5.0)


@pytest.fixture
def url(leads, lead):
    return f"{leads}/{lead}"


def ignore(_event):
    """A hook that can be pickled."""


def renew(_request):
    """A refresh that can be pickled."""


class TestOptions:
    OPTIONS = (
        {"timeout": (3.05, 27), "verify": "/etc/ssl/certs", "cert": ("/c.pem", "/k.pem"), "stream": True},
        {"timeout": 5, "verify": False, "cert": "/c.pem", "proxies": {"https": "http://proxy.example:3128"}},
        {},
    )

    @pytest.mark.parametrize("options", OPTIONS)
    def test_reach_every_send_unchanged(self, clock, options):
        sent = []

        class Inner(HTTPAdapter):
            def send(self, request, **given):
                sent.append(given)
                return answers.pop(0)

        answers = [answer(400, {"data": [LOCKED]}), answer(200, {"data": [APPLIED]})]
        with requests.Session() as session:
            session.trust_env = False
            session.mount("https://", GuardAdapter(clock=clock, inner=Inner()))
            session.put(URL, json=ROW, **options)
        expected = {"timeout": None, "verify": True, "cert": None, "stream": False, "proxies": {}, **options}
        assert [{**given, "proxies": dict(given["proxies"])} for given in sent] == [expected] * 2

    @pytest.mark.parametrize("options", OPTIONS[:1])
    def test_of_a_diagnosis_are_the_same_but_for_its_own_limit(self, clock, options):
        sent = []

        class Inner(HTTPAdapter):
            def send(self, request, **given):
                sent.append(given)
                return answer(400, {"data": [REFUSED]})

        with requests.Session() as session:
            session.mount("https://", GuardAdapter(clock=clock, inner=Inner()))
            with pytest.raises(NotApprovedError):
                session.put(URL, json=ROW, **options)
        connect, read = sent[1]["timeout"]
        assert connect == 3.05
        assert 4 < read <= 5
        assert sent[1] == {**sent[0], "timeout": (connect, read), "stream": True}

    def test_may_be_given_by_position(self, crm, clock, url):
        with GuardAdapterOf(clock) as adapter:
            response = adapter.send(requests.Request("PUT", url, json=ROW).prepare(), False, (3, 5), True, None, {})
        assert response.status_code == 200


class GuardAdapterOf:
    """A guard that is closed at the end of a block."""

    def __init__(self, clock):
        self.adapter = GuardAdapter(clock=clock)

    def __enter__(self):
        return self.adapter

    def __exit__(self, *_error):
        self.adapter.close()


def answer(status, body):
    """Make a response without any network."""
    response = requests.Response()
    response.status_code = status
    response.headers["Content-Type"] = "application/json"
    response._content = json.dumps(body).encode()
    return response


class Proxy(BaseHTTPRequestHandler):
    """A plain HTTP proxy that notes what passes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body would wait 40 ms for an acknowledgement of the head
    passed = ()

    def do_PUT(self):
        authority, _, path = self.path.removeprefix("http://").partition("/")
        self.passed.append(self.path)
        upstream = HTTPConnection(authority)
        upstream.request("PUT", "/" + path, self.rfile.read(int(self.headers["Content-Length"])))
        reply = upstream.getresponse()
        body = reply.read()
        upstream.close()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.headers["Content-Type"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """Stay quiet."""


@pytest.fixture
def proxy():
    """The URL of a proxy, and the list of what passed through it."""
    handler = type("Noting", (Proxy,), {"passed": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.passed
        server.shutdown()
        thread.join()


def test_every_send_goes_through_the_proxy(crm, session, url, proxy):
    address, passed = proxy
    session.trust_env = False
    assert session.put(url, json=ROW, proxies={"http": address}).status_code == 200
    assert passed == [url] * len(crm.calls)
    assert len(passed) > 1


class TestRedirects:
    def test_each_hop_is_judged_on_its_own(self, crm, session, leads, lead):
        elsewhere = crm.add_record("Leads")
        crm.fault("answer", status=307, headers={"Location": f"/crm/v8/Leads/{lead}"}, path=elsewhere)
        response = session.put(f"{leads}/{elsewhere}", json=ROW)
        assert response.status_code == 200
        assert [hop.status_code for hop in response.history] == [307]
        assert crm.write_counts == {lead: 1}
        assert get_report(response).attempts > 1

    def test_one_that_answers_a_resend_is_followed(self, crm, session, leads, lead):
        elsewhere = crm.add_record("Leads")
        crm.fault("answer", status=307, headers={"Location": f"/crm/v8/Leads/{elsewhere}"}, path=lead, after=1)
        assert session.put(f"{leads}/{lead}", json=ROW).status_code == 200
        assert crm.write_counts == {elsewhere: 1}

    def test_credentials_do_not_follow_to_another_host(self, crm, session, leads, lead):
        elsewhere = crm.url.replace("127.0.0.1", "localhost")
        mount_guard(session, elsewhere)
        crm.set_state(lead, "zia_vision_rejected")
        crm.fault("answer", status=307, headers={"Location": f"{elsewhere}/crm/v8/Leads/{lead}"})
        with pytest.raises(NotApprovedError):
            session.put(f"{leads}/{lead}", json=ROW, headers={"Authorization": "Zoho-oauthtoken secret"})
        first, *later = crm.calls
        assert first.header("Authorization") == "Zoho-oauthtoken secret"
        assert [call.header("Authorization") for call in later] == [None, None]  # the write and its diagnosis

    def test_are_left_alone_where_the_caller_wants_none(self, crm, session, url):
        crm.fault("answer", status=307, headers={"Location": "/crm/v8/org"})
        response = session.put(url, json=ROW, allow_redirects=False)
        assert (response.status_code, response.next.url) == (307, f"{crm.url}/crm/v8/org")


class TestCookies:
    def test_of_every_attempt_reach_the_session(self, crm, session, url, lead):
        headers = {"Content-Type": "application/json", "Set-Cookie": "first=1; Path=/"}
        lock = json.dumps({"data": [{**LOCKED, "details": {**LOCKED["details"], "id": lead}}]})
        crm.fault("answer", status=400, body=lock, headers=headers)
        crm.fault("answer", status=400, body=lock, headers={**headers, "Set-Cookie": "second=2; Path=/"})
        session.put(url, json=ROW)
        assert session.cookies.get_dict() == {"first": "1", "second": "2"}

    def test_of_the_last_attempt_win(self, clock):
        with Simulator(clock=clock, cookies=True) as crm, requests.Session() as session:
            mount_guard(session, crm.url, clock=clock)
            lead = crm.add_record("Leads", locked_for=5.0)
            session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW)
            assert session.cookies["zalb_sim"] == str(len(crm.calls))

    def test_of_the_session_go_with_every_attempt(self, crm, session, url):
        session.cookies["choice"] = "blue"
        session.put(url, json=ROW)
        assert {call.header("Cookie") for call in crm.calls} == {"choice=blue"}


DIGEST = {"WWW-Authenticate": 'Digest realm="crm", nonce="abc", qop="auth"'}


class TestDigestAuthentication:
    """Its second try is sent through `response.connection`, not through the session."""

    def test_the_second_try_is_guarded(self, crm, session, url, lead):
        crm.fault("answer", status=401, headers=DIGEST)
        response = session.put(url, json=ROW, auth=HTTPDigestAuth("u", "p"))
        assert response.status_code == 200
        assert [call.status for call in crm.calls[:2]] == [401, 400]
        assert crm.writes(lead) == 1
        assert crm.calls[-1].header("Authorization").startswith('Digest username="u"')

    @pytest.mark.parametrize("own", [HTTPAdapter(), HTTPAdapter(pool_maxsize=3)])
    def test_the_second_try_is_guarded_where_the_guard_is_installed(self, crm, clock, url, own):
        crm.fault("answer", status=401, headers=DIGEST)
        with install(crm.url, clock=clock), requests.Session() as session:
            session.mount("http://", own)
            assert session.put(url, json=ROW, auth=HTTPDigestAuth("u", "p")).status_code == 200

    def test_a_challenge_that_answers_a_resend_is_met_too(self, crm, session, url, lead):
        crm.fault("answer", status=401, headers=DIGEST, after=1)
        assert session.put(url, json=ROW, auth=HTTPDigestAuth("u", "p")).status_code == 200
        assert crm.writes(lead) == 1


class TestResponses:
    def test_hooks_see_the_final_one_once(self, session, url):
        seen = []
        response = session.put(url, json=ROW, hooks={"response": lambda got, **_options: seen.append(got)})
        assert seen == [response]

    def test_elapsed_covers_the_waits_and_the_report_tells_them_apart(self):
        policy = GuardSettings(wait_initial=0.02, wait_max=0.02, wait_jitter=0)
        with Simulator() as crm, requests.Session() as session:
            mount_guard(session, crm.url, settings=policy)
            lead = crm.add_record("Leads", refusals=1)
            response = session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW)
        waited = get_report(response).waited
        assert response.elapsed.total_seconds() >= waited > 0.01

    def test_know_the_callers_request_and_their_adapter(self, crm, session, url):
        prepared = session.prepare_request(requests.Request("PUT", url, json=ROW))
        response = session.send(prepared)
        assert response.request is prepared
        assert response.connection is session.get_adapter(url)
        assert response.url == url

    def test_of_downloads_can_be_streamed(self, crm, session, leads):
        lead = crm.add_record("Leads", image=bytes(50_000), locked_for=5.0)
        with session.get(f"{leads}/{lead}/photo", stream=True) as response:
            assert response.raw.read(10) == bytes(10)
            assert len(response.raw.read()) == 49_990


class TestCopying:
    @pytest.fixture
    def whole(self):
        return GuardAdapter(
            GuardSettings(attempts=7, retry_actions=("a", "b"), raise_on="partial"),
            hooks=[ignore],
            lock_registry=Unshared(),
            refresh=renew,
            inner=HTTPAdapter(pool_maxsize=2),
            pool_connections=3,
            pool_maxsize=4,
            max_retries=Retry(connect=5),
            pool_block=True,
        )

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])  # noqa: S301
    def test_an_adapter_keeps_every_argument(self, whole, again):
        copied = again(whole)
        was, now = whole.__getstate__(), copied.__getstate__()
        assert was.keys() == now.keys() == set(GuardAdapter.__attrs__) > set(HTTPAdapter.__attrs__)
        assert (copied.settings, copied.hooks, copied.context.refresh) == (whole.settings, (ignore,), renew)
        assert now["max_retries"].connect == 5
        assert now["inner"].__getstate__()["_pool_maxsize"] == 2
        assert isinstance(copied.locks, Unshared)
        pool = [name for name in HTTPAdapter.__attrs__ if name.startswith("_pool")]
        assert [now[name] for name in pool] == [was[name] for name in pool]

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])  # noqa: S301
    def test_a_session_goes_on_guarding(self, crm, leads, again):
        policy = GuardSettings(wait_initial=0.005, wait_max=0.01)
        with requests.Session() as session:
            mount_guard(session, crm.url, settings=policy)
            with again(session) as copied:
                lead = crm.add_record("Leads", refusals=2)
                assert copied.put(f"{leads}/{lead}", json=ROW).status_code == 200
                assert copied.get_adapter(leads) is not session.get_adapter(leads)

    def test_a_closed_session_can_be_used_again_as_without_a_guard(self, session, url):
        session.close()
        assert session.put(url, json=ROW).status_code == 200


class TestRefresh:
    """A token lives for an hour, and a wait may outlast it."""

    @pytest.fixture
    def crm(self, clock):
        with Simulator(clock=clock, token="old") as simulator:
            clock.during_wait = lambda: simulator.expire_token("new")
            yield simulator

    def send(self, crm, clock, url, **options):
        with requests.Session() as session:
            mount_guard(session, crm.url, clock=clock, **options)
            headers = {"Authorization": "Zoho-oauthtoken old"}
            prepared = session.prepare_request(requests.Request("PUT", url, json=ROW, headers=headers))
            return prepared, session.send(prepared)

    @staticmethod
    def renewed(request):
        request.headers["Authorization"] = "Zoho-oauthtoken new"

    def test_without_it_the_caller_gets_the_401(self, crm, clock, url, lead):
        _, response = self.send(crm, clock, url)
        assert response.status_code == 401
        assert response.json()["code"] == "INVALID_TOKEN"
        assert crm.writes(lead) == 0

    def test_with_it_the_call_succeeds_and_the_callers_request_is_untouched(self, crm, clock, url, lead):
        prepared, response = self.send(crm, clock, url, refresh=self.renewed)
        assert response.status_code == 200
        assert crm.writes(lead) == 1
        assert prepared.headers["Authorization"] == "Zoho-oauthtoken old"

    def test_it_runs_before_each_resend_and_never_before_the_first_send(self, crm, clock, url):
        seen = []

        def renewed(request):
            seen.append(len(crm.calls))
            self.renewed(request)

        self.send(crm, clock, url, refresh=renewed)
        assert seen == list(range(1, len(crm.calls)))

    def test_it_sees_the_body_that_is_about_to_be_sent(self, crm, clock, leads, lead):
        free, seen = crm.add_record("Leads"), []

        def renewed(request):
            self.renewed(request)
            seen.append([row["id"] for row in json.loads(request.body)["data"]])

        with requests.Session() as session:
            mount_guard(session, crm.url, clock=clock, refresh=renewed)
            session.headers["Authorization"] = "Zoho-oauthtoken old"
            rows = [{"id": free, "Company": "a"}, {"id": lead, "Company": "b"}]
            assert session.put(leads, json={"data": rows}).status_code == 200
        assert seen == [[lead]] * len(seen) != []

    def test_a_diagnosis_after_it_goes_with_the_renewed_token(self, crm, clock, leads):
        lead = crm.add_record("Leads", locked_for=2.0, then="zia_vision_rejected")
        with pytest.raises(NotApprovedError) as caught:
            self.send(crm, clock, f"{leads}/{lead}", refresh=self.renewed)
        assert caught.value.case is ApprovalCase.ZIA_REJECTED
        assert [call.status for call in crm.calls[-2:]] == [400, 200]

    def test_its_own_failure_reaches_the_caller_with_what_is_known(self, crm, clock, url, lead):
        reason = ["the refresh token was revoked"]

        def failing(_request):
            raise PermissionError(*reason)

        with pytest.raises(PermissionError, match="revoked") as caught:
            self.send(crm, clock, url, refresh=failing)
        assert get_report(caught.value).blocked[0].record_id == lead


class TestMocks:
    """Tests of our users that mock CRM with `responses`."""

    @pytest.fixture
    def mocked(self):
        with responses.RequestsMock() as mock:
            yield mock

    @pytest.fixture(params=["mounted", "installed"])
    def client(self, request, clock):
        with requests.Session() as session:
            if request.param == "mounted":
                mount_guard(session, clock=clock)
                yield session
            else:
                with install(clock=clock):
                    yield requests

    def test_each_send_is_a_call_with_its_own_body(self, mocked, client):
        free = {**APPLIED, "details": {"id": "111112000000075004"}}
        collection = URL.rpartition("/")[0]
        mocked.put(collection, json={"data": [LOCKED, free]}, status=207)
        mocked.put(collection, json={"data": [APPLIED]})
        rows = [{"id": item["details"]["id"], "Company": "a"} for item in (LOCKED, free)]
        response = client.put(collection, json={"data": rows})
        assert response.json() == {"data": [APPLIED, free]}
        bodies = [json.loads(call.request.body)["data"] for call in mocked.calls]
        assert bodies == [rows, rows[:1]]

    def test_a_diagnosis_that_nobody_expected_breaks_nothing(self, mocked, client):
        mocked.put(URL, json={"data": [REFUSED]}, status=400)
        with pytest.raises(NotApprovedError) as caught:
            client.put(URL, json=ROW)
        assert caught.value.candidates
        assert [call.request.method for call in mocked.calls] == ["PUT", "GET"]

    def test_an_expected_diagnosis_is_answered(self, mocked, client):
        mocked.put(URL, json={"data": [REFUSED]}, status=400)
        state = {"id": "111112000000075003", "$approval_state": "zia_vision_rejected"}
        mocked.get(URL.rpartition("/")[0], json={"data": [state]})
        with pytest.raises(NotApprovedError, match="upload another image"):
            client.put(URL, json=ROW)

    def test_a_lock_that_never_ends_is_given_up_without_waiting_for_it(self, mocked, client, clock):
        mocked.put(URL, json={"data": [LOCKED]}, status=400)
        with pytest.raises(RecordLockedError):
            client.put(URL, json=ROW)
        assert 100 < clock.now() <= load_settings().timeout

    def test_a_connection_error_of_a_mock_is_never_tried_again(self, mocked, client):
        mocked.put(URL, body=requests.ConnectionError("cut"))
        with pytest.raises(requests.ConnectionError, match="cut"):
            client.put(URL, json=ROW)
        assert len(mocked.calls) == 1


class TestAsAStockAdapter:
    """What the test-suite of `requests` asks of an adapter (see `requests_suite.py`, which runs all of it)."""

    @pytest.mark.parametrize("path", ["//v:h", "/crm/v8/Leads?ids=1,2", ""])
    def test_paths_and_proxies_are_read_alike(self, path):
        request = requests.Request("GET", "http://127.0.0.1:10000" + path).prepare()
        for proxies in ({}, {"http": "http://127.0.0.1:3128"}):
            assert GuardAdapter().request_url(request, proxies) == HTTPAdapter().request_url(request, proxies)

    def test_no_retries_are_made_unless_asked_for(self):
        assert GuardAdapter().max_retries.total == 0
        assert GuardAdapter(max_retries=2).max_retries.total == 2

    def test_adapters_are_chosen_by_the_longest_prefix_in_any_case(self, session):
        longer = GuardAdapter()
        session.mount("HTTPS://Example.com/CRM/", longer)
        assert session.get_adapter("https://example.COM/crm/v8/Leads") is longer
        assert session.get_adapter("https://example.com/") is not longer

    def test_a_response_can_be_built_from_one_of_urllib3(self, crm, leads):
        adapter = GuardAdapter()
        raw = adapter.poolmanager.request("GET", f"{crm.url}/crm/v8/org", preload_content=False)
        request = requests.Request("GET", f"{crm.url}/crm/v8/org").prepare()
        response = adapter.build_response(request, raw)
        assert response.json()["org"]
        assert response.connection is adapter
        adapter.close()

    def test_a_refused_connection_is_a_connection_error(self, crm, session, url):
        crm.stop()
        with pytest.raises(requests.ConnectionError):
            session.put(url, json=ROW)

    def test_a_late_answer_is_a_read_timeout_and_the_write_is_not_repeated(self, crm, session, leads):
        lead = crm.add_record("Leads")
        crm.fault("slow", seconds=5)
        with pytest.raises(requests.ReadTimeout):
            session.put(f"{leads}/{lead}", json=ROW, timeout=0.05)
        assert len(crm.calls) == 1

    @pytest.mark.parametrize("fault", ["reset", "drop", "429"])
    def test_the_retries_that_are_recommended_repeat_no_write(self, crm, session, leads, fault):
        lead = crm.add_record("Leads")
        crm.fault(fault, times=9, applied=True, retry_after=0)
        recommended = Retry(connect=3, read=False, other=0, respect_retry_after_header=False)
        session.mount(crm.url, GuardAdapter(GuardSettings(), max_retries=recommended))
        with contextlib.suppress(requests.ConnectionError):
            session.put(f"{leads}/{lead}", json=ROW)
        assert len(crm.calls) == 1

    @pytest.mark.parametrize("broken", ["http://", "http://*example.com/", "http://.example.com/"])
    def test_broken_urls_are_refused_as_ever(self, session, broken):
        with pytest.raises(requests.exceptions.InvalidURL):
            session.get(broken)

    def test_chunked_bodies_are_sent(self, crm, session, leads):
        lead = crm.add_record("Leads")
        response = session.put(f"{leads}/{lead}", data=iter([b'{"data": [{', b'"Company": "Zylker"}]}']))
        assert response.status_code == 200
        assert crm.get(lead).fields["Company"] == "Zylker"

    def test_a_head_request_has_no_body(self, session, crm):
        assert session.head(f"{crm.url}/crm/v8/org").content == b""
