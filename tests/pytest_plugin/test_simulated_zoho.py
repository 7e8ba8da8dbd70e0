"""A simulated CRM stands in for Zoho: who reaches it, whose waits take no time, what is left afterwards."""

from __future__ import annotations

import importlib
import threading

import pytest
import requests
import urllib3

import crm_guard
from crm_guard._testing.names import ZOHO
from crm_guard.clock import SystemClock, Wake
from crm_guard.locks import WaitContext
from crm_guard.testing import ManualClock, simulated_zoho
from tests.clients.conftest import SDK, load

LEADS = "https://www.zohoapis.com/crm/v8/Leads"
ROW = {"data": [{"Company": "Zylker"}]}
OLD = requests.Session()
"""A session of the code under test, guarded when that was imported."""
crm_guard.mount_guard(OLD)


@pytest.fixture
def lead(zoho_crm):
    return zoho_crm.add_record("Leads", locked_for=60.0)


@pytest.fixture
def no_guard():
    """See that no guard is left under the sessions of the process."""
    yield
    assert type(requests.Session().get_adapter(LEADS)) is requests.adapters.HTTPAdapter


class TestHosts:
    def test_every_host_of_crm_is_answered(self, zoho_crm):
        for number, prefix in enumerate(crm_guard.CRM_PREFIXES):
            lead = zoho_crm.add_record("Leads", str(number))
            url = f"{prefix}crm/v8/Leads/{lead}"
            response = requests.put(url, json=ROW)
            assert (response.status_code, response.url, response.request.url) == (200, url, url)
        assert len(zoho_crm.write_counts) == len(crm_guard.CRM_PREFIXES)

    @pytest.mark.parametrize(
        "host",
        [
            "accounts.zoho.com",
            "accounts.zohocloud.ca",
            "content.zohoapis.com.au",
            "zohoapis.eu",
            "WWW.ZOHOAPIS.IN.",
        ],
    )
    def test_of_other_services_of_zoho_too(self, host):
        assert ZOHO.fullmatch(host)

    @pytest.mark.parametrize("host", ["notzoho.com", "zoho.com.evil.test", "zoho", "zohoapis.example", "zoho.io.x"])
    def test_hosts_of_others_are_not_concerned(self, host):
        assert not ZOHO.fullmatch(host)

    @pytest.mark.zoho_crm(token="secret")
    def test_tokens_come_from_the_accounts_server(self, zoho_crm):
        answer = requests.post("https://accounts.zoho.eu/oauth/v2/token", data={"grant_type": "refresh_token"})
        assert answer.json()["access_token"] in zoho_crm.tokens
        assert answer.json()["api_domain"] == zoho_crm.url

    def test_what_is_not_crm_is_refused_by_the_simulator(self, zoho_crm):
        assert requests.get("https://www.zohoapis.com/books/v3/contacts").status_code == 404
        assert [call.path for call in zoho_crm.calls] == ["/books/v3/contacts"]

    def test_a_proxy_of_the_environment_is_not_asked(self, zoho_crm, monkeypatch):
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody is there
        free = zoho_crm.add_record("Leads")
        assert requests.put(f"{LEADS}/{free}", json=ROW).ok
        assert (
            requests.get("http://www.zohoapis.com/crm/v8/Leads").status_code == 404
        )  # an absolute URL for a proxy

    def test_the_guarded_session_asks_no_proxy_either(self, zoho_crm, guarded_session, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert guarded_session.put(f"{zoho_crm.url}/crm/v8/Leads/{zoho_crm.add_record('Leads')}", json=ROW).ok

    def test_a_manager_of_another_kind_is_led_astray_too(self, zoho_crm):
        class Tunnel(urllib3.HTTPConnectionPool):
            """As that of a SOCKS proxy."""

            def urlopen(self, *args, **options):
                raise AssertionError

        with urllib3.PoolManager() as pool:
            pool.pool_classes_by_scheme = {"http": Tunnel, "https": Tunnel}
            assert pool.request("GET", f"{LEADS}/{zoho_crm.add_record('Leads')}").status == 200

    def test_urllib3_alone_is_answered(self, zoho_crm):
        with urllib3.PoolManager() as pool:
            assert pool.request("GET", f"{LEADS}/{zoho_crm.add_record('Leads')}").status == 200

    def test_arguments_about_tls_do_not_matter(self, zoho_crm):
        with urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname="crm", server_hostname="crm") as pool:
            assert pool.request("GET", f"{LEADS}/{zoho_crm.add_record('Leads')}").status == 200

    def test_each_session_has_connections_of_its_own(self, zoho_crm, guarded_session):
        with requests.Session() as other:
            for _ in range(2):
                guarded_session.get(f"{LEADS}/1")
                other.get(f"{LEADS}/1")
        assert zoho_crm.connections == 2

    def test_the_innermost_of_two_answers(self, zoho_crm):
        with simulated_zoho() as inner:
            requests.get(f"{LEADS}/1")
        requests.get(f"{LEADS}/2")
        assert [call.path for call in inner.calls] == ["/crm/v8/Leads/1"]
        assert [call.path for call in zoho_crm.calls] == ["/crm/v8/Leads/2"]


class TestTime:
    """Each of these would take a minute."""

    def test_the_fixtures_of_the_first_example(self, zoho_crm, zoho_clock, guarded_session, lead):
        assert guarded_session.put(f"{zoho_crm.url}/crm/v8/Leads/{lead}", json=ROW).ok
        assert guarded_session.get(f"{LEADS}/{lead}").ok
        assert zoho_crm.writes(lead) == 1
        assert sum(zoho_clock.waits) == zoho_clock.now() >= 60.0

    def test_a_guard_that_was_mounted_long_before(self, zoho_clock, lead):
        response = OLD.put(f"{LEADS}/{lead}", json=ROW)
        assert crm_guard.get_report(response).waited == zoho_clock.now() >= 60.0

    def test_an_installed_guard(self, zoho_clock, lead):
        with crm_guard.install():
            assert requests.put(f"{LEADS}/{lead}", json=ROW).ok
        assert zoho_clock.now() >= 60.0

    def test_many_rows(self, zoho_crm, zoho_clock, lead):
        ids = [lead, zoho_crm.add_record("Leads")]
        rows = ({"id": record_id, "Company": "Zylker"} for record_id in ids)
        with requests.Session() as session, crm_guard.write_records(session, "PUT", LEADS, rows) as writer:
            assert [result.succeeded for result in writer] == [True, True]
        assert zoho_crm.write_counts == dict.fromkeys(ids, 1)
        assert zoho_clock.now() >= 60.0

    def test_callers_share_what_they_know_of_a_lock(self, zoho_crm, lead, together):
        def put():
            with requests.Session() as session:
                crm_guard.mount_guard(session)
                return session.put(f"{LEADS}/{lead}", json=ROW).status_code

        assert together([put] * 3) == [200] * 3
        assert zoho_crm.writes(lead) == 3

    def test_a_guard_with_a_clock_of_its_own_keeps_it(self, zoho_clock, lead):
        own = ManualClock(start=1000.0, during_wait=lambda: zoho_clock.advance(60.0))
        with requests.Session() as session:
            crm_guard.mount_guard(session, clock=own)
            assert session.put(f"{LEADS}/{lead}", json=ROW).ok
        assert len(own.waits) == 1
        assert zoho_clock.waits == []


@pytest.fixture
def signed_in(zoho_crm, monkeypatch, tmp_path):
    """Zoho's SDK as programs start it: with Zoho's own addresses."""
    names = load()
    monkeypatch.setattr(names.Initializer, "initializer", None)
    monkeypatch.setattr(names.Initializer.LOCAL, "init", None, raising=False)
    centre = importlib.import_module("zohocrmsdk.src.com.zoho.crm.api.dc").EUDataCenter
    names.Initializer.initialize(
        centre.PRODUCTION(),
        names.OAuthToken(client_id="id", client_secret="secret", refresh_token="refresh"),
        store=names.FileStore(str(tmp_path / "tokens.txt")),
        resource_path=str(tmp_path),
    )
    return SDK(names)


def test_zohos_sdk_signs_in_and_writes(signed_in, zoho_crm, lead, zoho_clock):
    with crm_guard.install():
        assert signed_in.update(lead).get_status_code() == 200
    assert zoho_crm.writes(lead) == 1
    assert zoho_crm.calls[0].path == "/oauth/v2/token"


class TestAfterwards:
    def test_hosts_and_time_are_as_before(self):
        patched = [(urllib3.PoolManager, "connection_from_host"), (urllib3.ProxyManager, "connection_from_host")]
        patched += [(SystemClock, "now"), (SystemClock, "wait")]
        before = [vars(kind)[name] for kind, name in patched]
        with pytest.raises(ZeroDivisionError), simulated_zoho():
            assert set(before).isdisjoint(vars(kind)[name] for kind, name in patched) / 0
        assert [vars(kind)[name] for kind, name in patched] == before

    def test_no_thread_and_no_connection_is_left(self):
        before = threading.active_count()
        with requests.Session() as living:
            with simulated_zoho() as crm:
                living.get(f"{LEADS}/1")
                living.get(f"{crm.url}/crm/v8/Leads/1")
                managers = [living.get_adapter(url).poolmanager for url in (LEADS, crm.url)]
                pools = [manager.pools[key] for manager in managers for key in manager.pools.keys()]  # noqa: SIM118
                idle = [connection for pool in pools for connection in pool.pool.queue if connection]
                assert [connection.is_closed for connection in idle] == [False, False]
            assert all(connection.is_closed for connection in idle)
            assert [len(manager.pools) for manager in managers] == [0, 0]
        assert threading.active_count() == before

    def test_a_session_that_lives_on_reaches_the_next_simulator(self):
        for _ in range(2):
            with simulated_zoho() as crm:
                assert OLD.put(f"{LEADS}/{crm.add_record('Leads')}", json=ROW).ok
                assert len(crm.calls) == 1

    def test_what_the_code_installed_is_undone(self, no_guard):
        with simulated_zoho():
            crm_guard.install()
            crm_guard.install(settings={"timeout": 1})

    def test_what_was_installed_before_stays(self, no_guard):
        with crm_guard.install() as guard:
            with simulated_zoho():
                crm_guard.install(settings={"timeout": 1})
            assert requests.Session().get_adapter(LEADS) is guard

    def test_what_an_abandoned_call_knew_of_a_lock_is_unknown_to_the_next_test(self):
        registry = OLD.get_adapter(LEADS).locks
        with simulated_zoho(ManualClock(start=9000.0)) as crm:
            context = WaitContext(SystemClock(), Wake(), lambda: False)
            registry.waiter(context).verdict(locked=[key := "https://www.zohoapis.com|1"], free=[])
            assert registry.knows([key])
        with simulated_zoho() as crm:
            crm.add_record("Leads", "1")
            assert not registry.knows([key])
            assert crm_guard.get_report(OLD.put(f"{LEADS}/1", json=ROW)).waited == 0.0

    def test_a_stop_for_good_does_not_reach_the_next_test(self):
        with simulated_zoho():
            crm_guard.stop_waiting(for_good=True)
        with simulated_zoho() as crm:
            for session in (OLD, requests.Session()):
                crm_guard.mount_guard(session)
                assert session.put(f"{LEADS}/{crm.add_record('Leads', locked_for=60.0)}", json=ROW).ok
            session.close()


class TestArguments:
    def test_the_clock_is_the_one_that_is_given(self):
        clock = ManualClock(start=5.0)
        with simulated_zoho(clock) as crm:
            requests.get(f"{LEADS}/1")
        assert crm.calls[0].at == 5.0

    def test_a_clock_that_guards_cannot_wait_on_is_refused(self):
        with pytest.raises(TypeError, match="by position"), simulated_zoho(clock=lambda: 0.0):
            pass  # pragma: no cover

    def test_options_reach_the_simulator_and_bad_ones_leave_nothing(self):
        with simulated_zoho(token="secret"):
            assert requests.get(f"{LEADS}/1").status_code == 401
        before = SystemClock.now
        with pytest.raises(ValueError, match="latency=-1"), simulated_zoho(latency=-1):
            pass  # pragma: no cover
        assert SystemClock.now is before
