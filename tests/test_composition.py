"""The guard over adapters of other projects, the real ones: each send and each resend passes through them."""

import io
import json
import ssl
from email.utils import formatdate

import pytest
import requests
from cachecontrol import CacheControl, CacheControlAdapter
from requests.adapters import BaseAdapter, HTTPAdapter
from requests_ratelimiter import LimiterAdapter, LimiterSession
from requests_toolbelt.adapters.host_header_ssl import HostHeaderSSLAdapter
from requests_toolbelt.adapters.ssl import SSLAdapter

from crm_guard import GuardAdapter, NotApprovedError, get_report, install, mount_guard

ROW = {"data": [{"Company": "Zylker"}]}


class Bare(BaseAdapter):
    """The least that `requests` accepts as an adapter: no pool, no `build_response`, no pickling."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)
        self.requests = []
        self.closed = 0

    def send(self, request, **options):
        self.requests.append((request, options))
        response = requests.Response()
        response.status_code, body = self.answers.pop(0)
        response.headers["Content-Type"] = "application/json"
        response.raw = io.BytesIO(json.dumps(body).encode())
        response.request, response.url = request, request.url
        return response

    def close(self):
        self.closed += 1


ADAPTERS = {
    "a stock adapter": HTTPAdapter,
    "a rate limiter": lambda: LimiterAdapter(per_second=1000),
    "a cache": CacheControlAdapter,
    "a TLS version": lambda: SSLAdapter(ssl.PROTOCOL_TLSv1_2),
    "a host header": HostHeaderSSLAdapter,
}

LOCKED = {
    "code": "RECORD_LOCKED",
    "details": {"id": "111112000000075003", "action": "zia_vision_processing"},
    "message": "Cannot update record that is not approved yet",
    "status": "error",
}
APPLIED = {
    "code": "SUCCESS",
    "details": {"id": "111112000000075003"},
    "message": "record updated",
    "status": "success",
}
URL = "https://www.zohoapis.com/crm/v8/Leads/111112000000075003"


@pytest.fixture
def session():
    with requests.Session() as made:
        yield made


@pytest.fixture
def counted(request, monkeypatch):
    """An adapter of the parametrized kind, and the list of what it sent."""
    adapter, sent = ADAPTERS[request.param](), []
    whole = adapter.send

    def send(prepared, **options):
        sent.append(prepared)
        return whole(prepared, **options)

    monkeypatch.setattr(adapter, "send", send)
    yield adapter, sent
    adapter.close()


@pytest.mark.parametrize("counted", ADAPTERS, indirect=True)
class TestEachKind:
    def test_each_resend_passes_through_the_adapter_that_was_mounted(self, crm, clock, session, counted):
        adapter, sent = counted
        session.mount("http://", adapter)
        guard = mount_guard(session, crm.url, clock=clock)
        lead = crm.add_record("Leads", locked_for=5.0)
        response = session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW)
        assert response.status_code == 200
        assert guard.inner is adapter
        assert len(sent) == len(crm.calls) == get_report(response).attempts > 1

    def test_the_same_holds_where_the_guard_is_installed(self, crm, clock, session, counted):
        adapter, sent = counted
        session.mount("http://", adapter)
        lead = crm.add_record("Leads", locked_for=5.0)
        with install(crm.url, clock=clock):
            assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
        assert len(sent) == len(crm.calls) > 1

    def test_a_diagnosis_passes_through_it_too(self, crm, clock, session, counted):
        adapter, sent = counted
        session.mount("http://", adapter)
        mount_guard(session, crm.url, clock=clock)
        lead = crm.add_record("Leads", state="zia_vision_rejected")
        with pytest.raises(NotApprovedError, match="upload another image"):
            session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW)
        assert [prepared.method for prepared in sent] == ["PUT", "GET"]

    def test_a_download_stays_a_stream(self, crm, clock, session, counted):
        adapter, _ = counted
        session.mount("http://", adapter)
        mount_guard(session, crm.url, clock=clock)
        lead = crm.add_record("Leads", image=b"\x89PNG" + bytes(100_000))
        with session.get(f"{crm.url}/crm/v8/Leads/{lead}/photo", stream=True) as response:
            assert not response._content_consumed
            assert len(b"".join(response.iter_content(4096))) == 100_004


class TestABareAdapter:
    def test_it_is_enough_to_send_through(self, session, clock):
        inner = Bare((400, {"data": [LOCKED]}), (200, {"data": [APPLIED]}))
        session.mount("https://", inner)
        mount_guard(session, clock=clock)
        response = session.put(URL, json=ROW, timeout=(3, 4), verify=False)
        assert response.json() == {"data": [APPLIED]}
        assert [options["timeout"] for _, options in inner.requests] == [(3, 4)] * 2
        assert [options["verify"] for _, options in inner.requests] == [False] * 2

    def test_a_refusal_is_explained_from_its_answers(self, session, clock):
        refused = {"code": "NOT_APPROVED", "details": {}, "message": "no", "status": "error"}
        session.mount("https://", Bare((400, {"data": [refused]})))
        mount_guard(session, clock=clock, settings={"diagnose": False})
        with pytest.raises(NotApprovedError) as caught:
            session.put(URL, json=ROW)
        assert caught.value.response.json() == {"data": [refused]}

    def test_closing_rules(self):
        """We close what we took over; what was handed to us stays its owner's to close."""
        taken, handed, installed = Bare(), Bare(), Bare((200, {}))
        with requests.Session() as session:
            session.mount("https://www.zohoapis.com/", taken)
            mount_guard(session, "https://www.zohoapis.com/")
            session.mount("https://www.zohoapis.eu/", GuardAdapter(inner=handed))
        assert (taken.closed, handed.closed) == (1, 0)
        with requests.Session() as session:
            session.mount("https://", installed)
            with install() as guard:
                session.get(URL)
                guard.close()
            assert installed.closed == 0
        assert installed.closed == 1


def test_a_rate_limit_counts_every_send(crm, clock, session):
    """Each attempt takes its turn: two fit into the interval, and the limiter refuses the third."""
    session.mount("http://", LimiterAdapter(per_second=2, max_delay=0))
    mount_guard(session, crm.url, clock=clock, settings={"share_locks": False})
    lead = crm.add_record("Leads", refusals=2)
    with pytest.raises(requests.Timeout, match="Rate limit not cleared") as caught:
        session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW)
    assert len(crm.calls) == 2
    assert get_report(caught.value).blocked[0].record_id == lead


def test_a_session_that_limits_by_itself_counts_calls_and_the_adapter_counts_sends(crm, clock):
    """The limiter is above the guard here: it sees one call, however often the guard sends it."""
    lead = crm.add_record("Leads", refusals=2)
    with LimiterSession(per_second=1, max_delay=0) as session:
        mount_guard(session, crm.url, clock=clock)
        assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
    assert len(crm.calls) == 3


def test_a_cached_session_caches_reads_and_guards_writes(crm, clock):
    lead = crm.add_record("Leads", locked_for=5.0)
    body = json.dumps({"org": []})
    headers = {"Content-Type": "application/json", "Cache-Control": "max-age=60", "Date": formatdate(usegmt=True)}
    crm.fault("answer", path="/org$", body=body, headers=headers)
    with CacheControl(requests.Session()) as session:
        guard = mount_guard(session, crm.url, clock=clock)
        assert isinstance(guard.inner, CacheControlAdapter)
        answers = [session.get(f"{crm.url}/crm/v8/org") for _ in range(3)]
        assert [answer.from_cache for answer in answers] == [False, True, True]
        assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
    assert [call.method for call in crm.calls].count("GET") == 1


def test_a_host_header_goes_with_every_send_and_with_the_diagnosis(crm, clock, session):
    """Whoever calls an address directly, and names the host in a header, reaches the same host each time."""
    mount_guard(session, crm.url, clock=clock)
    lead = crm.add_record("Leads", locked_for=5.0, then="zia_vision_rejected")
    with pytest.raises(NotApprovedError):
        session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW, headers={"Host": "www.zohoapis.com"})
    assert {call.header("Host") for call in crm.calls} == {"www.zohoapis.com"}
    assert crm.calls[-1].method == "GET"
