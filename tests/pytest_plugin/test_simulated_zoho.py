"""A simulated CRM stands in for Zoho: who reaches it, whose waits take no time, what is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import socket
import threading
import time
import urllib.request

import pytest
import requests
import urllib3

import crm_guard
from crm_guard import clock
from crm_guard._testing import hosts
from crm_guard._testing.names import ZOHO, ZOHO_URLS
from crm_guard.clock import SystemClock, Wake
from crm_guard.locks import WaitContext
from crm_guard.locks.memory import MemoryLockRegistry
from crm_guard.testing import ManualClock, simulated_zoho
from tests.clients.conftest import ROOT, signed_in

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


def pools_of(session):
    pools = session.get_adapter(LEADS).poolmanager.pools
    return [pools[key] for key in pools.keys()]  # noqa: SIM118 (it is not iterable)


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
            "zylker_crm.zoho.eu",
            "accounts.zoho.com.cn",
            "www.zohoapis.xx",
        ],
    )
    def test_of_other_services_of_zoho_too(self, host):
        assert ZOHO.fullmatch(host)
        for rest in ("", "/crm", ":443/", "?x"):
            assert ZOHO_URLS.match(f"https://{host}{rest}")

    @pytest.mark.parametrize(
        "host",
        [
            "notzoho.com",
            "zoho.com.evil.test",
            "zoho",
            "zohoapis.example",
            "zoho.io.x",
            "zoho.abc.com",
            "www.zoho.fr",
            "zoho.com.fr",
        ],
    )
    def test_hosts_of_others_are_not_concerned(self, host):
        assert not ZOHO.fullmatch(host)
        assert not ZOHO_URLS.match(f"https://{host}/zoho.com/")

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
        assert requests.get(f"http://www.zohoapis.com/crm/v8/Leads/{free}").ok  # an absolute URL, for a proxy
        assert [call.path for call in zoho_crm.calls] == [f"/crm/v8/Leads/{free}"] * 2

    @pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
    def test_nor_is_it_for_the_address_of_the_simulator(self, zoho_crm, monkeypatch, variable):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")
        assert requests.put(f"{zoho_crm.url}/crm/v8/Leads/{zoho_crm.add_record('Leads')}", json=ROW).ok
        with pytest.raises(requests.exceptions.ProxyError):
            requests.get("http://localhost:9/")

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

    def test_a_pool_is_made_with_the_arguments_of_its_session(self, zoho_crm):
        with requests.Session() as session:
            session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=3, pool_block=True))
            session.get(f"{LEADS}/1")
            (pool,) = pools_of(session)
        assert (pool.pool.maxsize, pool.block) == (3, True)

    def test_threads_share_the_pool_of_their_session(self, zoho_crm, together, monkeypatch):
        made = []

        class Slow(urllib3.HTTPConnectionPool):
            def __init__(self, *place, **options):
                made.append(place)
                threading.Event().wait(0.02)  # long enough for others to make one, too
                super().__init__(*place, **options)

        monkeypatch.setattr(hosts, "HTTPConnectionPool", Slow)
        with requests.Session() as session:
            together([lambda: session.get(f"{LEADS}/1")] * 4)
        assert len(made) == 1

    def test_the_innermost_of_two_answers(self, zoho_crm):
        with simulated_zoho() as inner:
            requests.get(f"{LEADS}/1")
        requests.get(f"{LEADS}/2")
        assert [call.path for call in inner.calls] == ["/crm/v8/Leads/1"]
        assert [call.path for call in zoho_crm.calls] == ["/crm/v8/Leads/2"]


def direct(host):
    with urllib3.HTTPSConnectionPool(host, retries=False, timeout=5) as pool:
        pool.request("GET", "/")


def plain(host):
    http.client.HTTPSConnection(host, timeout=5).request("GET", "/")


def opened(host):
    urllib.request.urlopen(f"https://{host}/", timeout=5)


def managed_otherwise(host):
    class Manager(urllib3.PoolManager):
        def connection_from_host(self, host, port=None, scheme="http", pool_kwargs=None):
            return urllib3.HTTPSConnectionPool(host, port)

    with Manager(retries=False, timeout=5) as pool:
        pool.request("GET", f"https://{host}/")


def asynchronous(host):
    asyncio.run(asyncio.open_connection(host, 443))


def in_bytes(host):
    socket.getaddrinfo(host.encode(), 443)


class TestOtherClients:
    @pytest.mark.parametrize("client", [direct, plain, opened, managed_otherwise, asynchronous, in_bytes])
    def test_they_find_no_address_and_are_told_why(self, zoho_crm, client, monkeypatch):
        for variable in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(variable, raising=False)
        with pytest.raises((OSError, urllib3.exceptions.HTTPError), match="a simulated CRM stands in for Zoho's"):
            client("www.zohoapis.com")
        assert zoho_crm.calls == ()

    def test_other_names_are_resolved(self, zoho_crm):
        assert socket.getaddrinfo("127.0.0.1", 443, type=socket.SOCK_STREAM)[0][4] == ("127.0.0.1", 443)
        assert socket.getaddrinfo(host=None, port=443)

    def test_who_took_the_function_meanwhile_finds_zoho_afterwards(self, monkeypatch):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *place: ["resolved", *place])
        with simulated_zoho():
            taken = socket.getaddrinfo
        assert taken("www.zohoapis.com", 443) == ["resolved", "www.zohoapis.com", 443]


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
def sdk(zoho_crm, monkeypatch, tmp_path):
    """Zoho's SDK as programs start it: with Zoho's own addresses."""
    centre = importlib.import_module(f"{ROOT}.crm.api.dc").EUDataCenter
    return signed_in(monkeypatch, tmp_path, centre.PRODUCTION())


def test_zohos_sdk_signs_in_and_writes(sdk, zoho_crm, lead, zoho_clock):
    with crm_guard.install():
        assert sdk.update(lead).get_status_code() == 200
    assert zoho_crm.writes(lead) == 1
    assert zoho_crm.calls[0].path == "/oauth/v2/token"


class TestAfterwards:
    def test_hosts_and_time_are_as_before(self):
        patched = [(urllib3.PoolManager, "connection_from_host"), (urllib3.ProxyManager, "connection_from_host")]
        patched += [(SystemClock, "now"), (SystemClock, "wait"), (socket, "getaddrinfo")]
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

    def test_a_session_that_was_closed_meanwhile_does_not_matter(self):
        with requests.Session() as living, simulated_zoho():
            living.get(f"{LEADS}/1")
            living.close()

    @pytest.mark.parametrize(
        "owner_and_name", [(urllib3.PoolManager, "connection_from_host"), (SystemClock, "now")]
    )
    def test_what_others_have_replaced_meanwhile_stays_and_reaches_the_original(self, owner_and_name, monkeypatch):
        owner, name = owner_and_name
        original = vars(owner)[name]
        with simulated_zoho():
            ours = vars(owner)[name]

            def theirs(*args, **options):
                return ours(*args, **options)

            monkeypatch.setattr(owner, name, theirs)
        assert vars(owner)[name] is theirs
        assert SystemClock().now() <= time.monotonic() <= SystemClock().now()
        with urllib3.PoolManager() as manager:
            assert manager.connection_from_host("www.zohoapis.com", 443, "https").host == "www.zohoapis.com"
        with simulated_zoho() as crm:  # around theirs
            assert requests.put(f"{LEADS}/{crm.add_record('Leads', locked_for=60.0)}", json=ROW).status_code == 400
            assert SystemClock().now() == 0.0
        assert vars(owner)[name] is theirs
        monkeypatch.undo()
        assert vars(owner)[name] is ours
        with simulated_zoho():
            assert vars(owner)[name] is ours  # again in use
        assert vars(owner)[name] is original

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

    def test_the_guard_that_it_installed_is_closed(self, no_guard, monkeypatch):
        closed = []
        monkeypatch.setattr(crm_guard.GuardAdapter, "close", lambda *guards: closed.extend(guards))
        with simulated_zoho():
            crm_guard.install()
            guard = requests.Session().get_adapter(LEADS)
        assert closed == [guard]

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


class TestSeveral:
    @pytest.fixture
    def known(self):
        """A registry, and whether it knows of a lock that was noted before the last change of the clock."""
        registry = OLD.get_adapter(LEADS).locks
        key = "https://www.zohoapis.com|1"
        waiter = registry.waiter(WaitContext(SystemClock(), Wake(), lambda: False))

        def look():
            before = registry.knows([key])
            waiter = registry.waiter(WaitContext(SystemClock(), Wake(), lambda: False))
            waiter.verdict(locked=[key], free=[])
            assert registry.knows([key])
            return before

        waiter.leave()
        look()
        yield look
        registry.reset()

    @pytest.fixture
    def begin(self):
        """Begins a simulation; returns it, and what ends it."""
        with contextlib.ExitStack() as everything:

            def one(*clock):
                it = everything.enter_context(contextlib.ExitStack())
                return it.enter_context(simulated_zoho(*clock)), it.close

            yield one

    @pytest.mark.parametrize("outer_first", [True, False])
    def test_they_may_end_in_any_order(self, begin, outer_first):
        before = [vars(urllib3.PoolManager)["connection_from_host"], SystemClock.now, socket.getaddrinfo]
        outer, end_outer = begin(ManualClock(start=100.0))
        inner, end_inner = begin(ManualClock(start=200.0))
        requests.get(f"{LEADS}/1")
        assert [len(crm.calls) for crm in (outer, inner)] == [0, 1]
        (end_outer if outer_first else end_inner)()
        requests.get(f"{LEADS}/1")
        assert [len(crm.calls) for crm in (outer, inner)] == ([0, 2] if outer_first else [1, 1])
        assert SystemClock().now() == (200.0 if outer_first else 100.0)
        (end_inner if outer_first else end_outer)()
        assert [vars(urllib3.PoolManager)["connection_from_host"], SystemClock.now, socket.getaddrinfo] == before

    def test_they_may_share_a_clock(self, begin):
        shared = ManualClock(start=100.0)
        _, end_outer = begin(shared)
        begin(ManualClock(start=200.0))
        _, end_inner = begin(shared)
        end_outer()
        assert SystemClock().now() == 100.0
        end_inner()
        assert SystemClock().now() == 200.0

    def test_what_is_known_of_locks_ends_whenever_the_simulator_changes_and_only_then(self, known, begin):
        _, end_first = begin()
        assert not known()
        _, end_second = begin()
        assert not known()
        _, end_third = begin()
        assert not known()
        end_second()
        assert known()
        end_third()
        assert not known()
        end_first()
        assert not known()

    def test_a_stop_for_good_ends_with_the_outermost_and_does_not_reach_into_it(self):
        def waits(crm):
            session = requests.Session()
            crm_guard.mount_guard(session)
            try:
                return session.put(f"{LEADS}/{crm.add_record('Leads', locked_for=60.0)}", json=ROW).ok
            except crm_guard.RecordLockedError:
                return False

        crm_guard.stop_waiting(for_good=True)
        with simulated_zoho() as outer:
            assert waits(outer)
            crm_guard.stop_waiting(for_good=True)
            with simulated_zoho() as inner:
                assert not waits(inner)
            assert not waits(outer)
        assert not clock._process.ends

    def test_what_was_installed_during_a_later_one_is_left_to_it(self, no_guard, begin):
        _, end_outer = begin()
        crm_guard.install()
        _, end_inner = begin()
        crm_guard.install(settings={"timeout": 1})
        guard = requests.Session().get_adapter(LEADS)
        end_outer()
        assert requests.Session().get_adapter(LEADS) is guard
        crm_guard.uninstall()
        assert not isinstance(requests.Session().get_adapter(LEADS), crm_guard.GuardAdapter)
        crm_guard.install()
        end_inner()


def test_what_redis_knows_of_locks_is_not_forgotten(zoho_crm):
    class Shared(MemoryLockRegistry):
        """As that in Redis: other processes rely on it."""

    registry = Shared()
    registry.waiter(WaitContext(SystemClock(), Wake(), lambda: False)).verdict(locked=["a"], free=[])
    with simulated_zoho():
        assert registry.knows(["a"])


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
