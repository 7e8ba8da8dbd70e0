"""Where the guard sits: under one session, or under all of a process."""

import contextlib
import copy
import gc
import os
import pickle
import threading
import weakref
from unittest import mock

import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import Retry

from crm_guard import (
    CRM_PREFIXES,
    GuardAdapter,
    GuardSettings,
    RecordLockedError,
    SettingsError,
    install,
    mount_guard,
    uninstall,
)

ROW = {"data": [{"Company": "Zylker"}]}
CRM = "https://www.zohoapis.com/"
LEADS = CRM + "crm/v8/Leads"
ELSEWHERE = CRM + "books/v3/contacts"
REPEATING = Retry(3, status_forcelist=(500, 502))
ONLY_429 = Retry(
    total=5,
    connect=3,
    read=False,
    other=0,
    status=5,
    status_forcelist=[429],
    allowed_methods=None,
    backoff_factor=1,
    raise_on_status=False,
    respect_retry_after_header=False,
)


class Counting(HTTPAdapter):
    """An adapter of somebody else's: counts what it sends, and notes when it is closed."""

    def __init__(self, **kwargs):
        self.sent = 0
        self.closed = False
        super().__init__(**kwargs)

    def send(self, *args, **kwargs):
        self.sent += 1
        return super().send(*args, **kwargs)

    def close(self):
        self.closed = True
        super().close()


@pytest.fixture
def session():
    with requests.Session() as made:
        yield made


@pytest.fixture
def lead(crm):
    return crm.add_record("Leads", locked_for=5.0)


@pytest.fixture(autouse=True)
def _nothing_stays():
    """Every test leaves `requests` as it was."""
    before = requests.Session.get_adapter
    yield
    left, requests.Session.get_adapter = requests.Session.get_adapter, before
    assert left is before


class TestMounting:
    def test_one_guard_serves_every_crm_host_and_nothing_else(self, session):
        guard = mount_guard(session)
        assert {session.get_adapter(prefix + "crm/v8/Leads") for prefix in CRM_PREFIXES} == {guard}
        assert session.get_adapter("https://zohoapis.eu/crm/v8/Leads") is guard
        assert not isinstance(session.get_adapter("https://www.zoho.com/crm/v8/Leads"), GuardAdapter)

    @pytest.mark.parametrize("prefix", ["https://crm.example", "https://CRM.example/", ["https://crm.example//"]])
    def test_a_prefix_does_not_match_a_longer_host_name(self, session, prefix):
        guard = mount_guard(session, prefix)
        assert session.get_adapter("https://crm.example/crm/v8/Leads") is guard
        assert session.get_adapter("https://crm.example.evil.test/crm/v8/Leads") is not guard

    @pytest.mark.parametrize("prefix", ["https://", "HTTPS://", ["https:///", CRM]])
    def test_a_scheme_alone_is_a_prefix_as_requests_has_it(self, session, prefix):
        places = session.adapters.keys()
        guard = mount_guard(session, prefix)
        assert session.get_adapter("https://crm.example/crm/v8/Leads") is guard
        assert not isinstance(session.get_adapter("http://crm.example/"), GuardAdapter)
        assert places <= {"https://", "http://", CRM}

    def test_the_guard_that_is_returned_is_the_one_in_use(self, session):
        session.mount("https://WWW.zohoapis.com/", HTTPAdapter())
        for prefix in (CRM, "https://"):
            assert mount_guard(session, prefix) is session.get_adapter(prefix)
        session.mount("https://www.zohoapis.eu/", Counting())
        assert mount_guard(session, ["https://", CRM]) is session.get_adapter("https://crm.example/")
        assert isinstance(session.get_adapter("https://www.zohoapis.eu/"), GuardAdapter)

    @pytest.mark.parametrize("prefixes", [(), "", ["www.zohoapis.com"], [CRM, "crm.example"], "://"])
    @pytest.mark.parametrize("how", [install, lambda prefixes: mount_guard(requests.Session(), prefixes)])
    def test_what_is_no_url_is_refused(self, prefixes, how):
        with pytest.raises(ValueError, match="names no place to mount the guard on"):
            how(prefixes)

    def test_a_bad_setting_leaves_the_session_as_it_was(self, session):
        before = dict(session.adapters)
        with pytest.raises(SettingsError, match="attempts"):
            mount_guard(session, settings={"attempts": 0})
        assert dict(session.adapters) == before

    def test_the_pool_and_the_retries_of_a_stock_adapter_are_kept(self, session):
        stock = HTTPAdapter(pool_connections=3, pool_maxsize=4, pool_block=True, max_retries=Retry(connect=2))
        session.mount("https://", stock)
        state = mount_guard(session, pool_maxsize=7).__getstate__()
        assert (state["_pool_connections"], state["_pool_maxsize"], state["_pool_block"]) == (3, 7, True)
        assert state["max_retries"] is stock.max_retries

    def test_an_adapter_of_another_kind_becomes_inner_and_sees_each_resend(self, crm, session, clock, lead):
        inner = Counting()
        session.mount("http://", inner)
        guard = mount_guard(session, crm.url, clock=clock)
        assert guard.inner is inner
        assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
        assert inner.sent == len(crm.calls) > 1

    def test_each_place_keeps_its_own_adapter(self, session):
        for_all, for_europe, for_leads = Counting(), Counting(), Counting()
        session.mount("https://", for_all)
        session.mount("https://www.zohoapis.eu/", for_europe)
        session.mount("https://www.zohoapis.com/crm/v8/Leads", for_leads)
        guard = mount_guard(session)
        assert guard.inner is for_all
        assert session.get_adapter("https://www.zohoapis.eu/crm/v8/Leads").inner is for_europe
        assert session.get_adapter("https://www.zohoapis.com/crm/v8/Leads/1").inner is for_leads
        assert session.get_adapter("https://www.zohoapis.com/crm/v8/Deals/1") is guard

    def test_a_stock_adapter_that_somebody_altered_becomes_inner(self, session):
        tls, patched = HTTPAdapter(), HTTPAdapter()
        tls.poolmanager.connection_pool_kw["ca_cert_dir"] = "/etc/corporate"
        patched.send = mock.Mock()
        for adapter in (tls, patched):
            session.mount("https://", adapter)
            assert mount_guard(session, f"https://crm{id(adapter)}.example").inner is adapter

    def test_a_guard_that_is_mounted_there_stays(self, session):
        guard = mount_guard(session)
        assert mount_guard(session) is guard
        assert mount_guard(session, CRM) is guard

    def test_arguments_for_a_guard_that_is_there_already_warn_once(self, session):
        guard = mount_guard(session)
        with pytest.warns(UserWarning, match="a guard is mounted there already") as warned:
            assert mount_guard(session, settings={"attempts": 2}) is guard
        assert len(warned) == 1
        assert warned[0].filename == __file__

    def test_more_prefixes_can_be_added_beside_a_guard(self, session):
        guard = mount_guard(session, CRM)
        other = mount_guard(session, ["https://crm.example", CRM])
        assert session.get_adapter(CRM) is guard
        assert session.get_adapter("https://crm.example/") is other is not guard

    def test_a_prefix_that_no_adapter_serves_is_served_from_then_on(self, session):
        session.adapters.clear()
        guard = mount_guard(session, "https://crm.example")
        assert session.get_adapter("https://crm.example/") is guard

    def test_retries_by_status_warn_once_at_the_line_that_mounts(self, session):
        for adapter in (HTTPAdapter(max_retries=REPEATING), Counting(max_retries=REPEATING)):
            session.mount("https://", adapter)
            with pytest.warns(UserWarning, match="status_forcelist") as warned:
                mount_guard(session, f"https://crm{id(adapter)}.example")
            assert [warning.filename for warning in warned] == [__file__]

    @pytest.mark.parametrize(
        "harmless",
        [3, Retry(3), Retry(0, status_forcelist=(500,)), Retry(3, status=0, status_forcelist=(500,)), ONLY_429],
    )
    def test_retries_that_repeat_no_status_or_just_429_do_not_warn(self, session, harmless):
        session.mount("https://", HTTPAdapter(max_retries=harmless))
        mount_guard(session)

    def test_closing_the_session_closes_what_became_inner_even_if_it_was_displaced(self):
        displaced, given = Counting(), Counting()
        with requests.Session() as session:
            session.mount(CRM, displaced)
            mount_guard(session, CRM)
            mount_guard(session, "https://crm.example", inner=given)
        assert displaced.closed
        assert not given.closed

    def test_while_installed_a_session_gets_a_guard_that_outlives_the_installation(self, session):
        with install() as shared:
            guard = mount_guard(session)
            assert guard is not shared
        assert session.get_adapter(CRM) is guard


class Foreign:
    """A session of another library that has learnt from `requests`, like niquests: same methods, no relation."""

    def __init__(self):
        self.adapters = {}

    def mount(self, prefix, adapter):
        self.adapters[prefix] = adapter

    def get_adapter(self, url):
        return next(adapter for prefix, adapter in self.adapters.items() if url.startswith(prefix))


class TestSessionsOfOtherLibraries:
    @pytest.mark.parametrize("session", [Foreign(), requests, requests.Session, None])
    def test_are_refused_before_anything_is_mounted_or_sent(self, session):
        with pytest.raises(TypeError, match=r"must be a requests\.Session, and is a ") as caught:
            mount_guard(session)
        assert f" {type(session).__qualname__}" in str(caught.value).replace(f"{__name__}.", "")
        assert not isinstance(session, Foreign) or session.adapters == {}

    def test_a_subclass_is_welcome_and_so_is_a_plain_one_that_a_subclass_hides(self, monkeypatch):
        class Cached(requests.Session):
            """What another library may put in the place of `requests.Session`."""

        for kind in (Cached, requests.Session):
            with kind() as session, monkeypatch.context() as patch:
                patch.setattr(requests, "Session", Cached)
                patch.setattr(requests.sessions, "Session", Cached)
                assert isinstance(mount_guard(session), GuardAdapter)


CALLS = {
    "mount_guard(session, ": lambda **options: mount_guard(requests.Session(), **options),
    "install(": install,
    "GuardAdapter(": GuardAdapter,
}


@pytest.mark.parametrize("call", CALLS)
class TestArguments:
    @pytest.mark.parametrize("field", sorted(set(GuardSettings.__struct_fields__) - {"lock_registry"}))
    def test_of_a_setting_says_where_it_belongs(self, call, field):
        value = getattr(GuardSettings(), field)
        with pytest.raises(TypeError) as caught:
            CALLS[call](**{field: value})
        assert str(caught.value) == f'{field} is a setting: {call}settings={{"{field}": {value!r}}})'
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    def test_that_are_several_settings_are_named_together(self, call):
        with pytest.raises(TypeError) as caught:
            CALLS[call](timeout=5, pool_maxsize=2, attempts=3)
        told = f'timeout and attempts are settings: {call}settings={{"timeout": 5, "attempts": 3}})'
        assert str(caught.value) == told

    def test_of_a_lock_registry_that_is_a_url_says_so_without_the_password(self, call):
        with pytest.raises(TypeError, match="lock_registry is a setting") as caught:
            CALLS[call](lock_registry="redis://:secret@localhost")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "guess"),
        [
            ("setings", "Did you mean settings?"),
            ("pool_maxsiz", "Did you mean pool_maxsize?"),
            ("timeot", 'Did you mean the setting timeout: {call}settings={{"timeout": ...}})?'),
            ("xyz", "unknown argument 'xyz'. Allowed: settings, clock, "),
        ],
    )
    def test_that_are_unknown_get_the_closest_name(self, call, name, guess):
        with pytest.raises(TypeError) as caught:
            CALLS[call](**{name: 1})
        assert guess.format(call=call) in str(caught.value)


def test_wrong_arguments_are_told_also_where_a_guard_is_mounted_already(session):
    mount_guard(session)
    with pytest.raises(TypeError, match="timeout is a setting"):
        mount_guard(session, timeout=5)
    with pytest.raises(TypeError, match="Did you mean settings"):
        mount_guard(session, setings={"timeout": 5})


class TestPositionalArguments:
    def pool(self, guard):
        state = guard.__getstate__()
        return tuple(state[f"_pool_{name}"] for name in ("connections", "maxsize", "block"))

    def test_are_those_of_the_stock_adapter_if_the_first_is_a_number(self):
        guard = GuardAdapter(3, 4, Retry(connect=5), True, settings={"attempts": 6})
        assert self.pool(guard) == (3, 4, True)
        assert guard.max_retries.connect == 5
        assert guard.settings.attempts == 6
        assert self.pool(GuardAdapter(3, pool_block=True)) == (3, 10, True)

    def test_are_the_settings_otherwise(self, tmp_path):
        file = tmp_path / "crm.toml"
        file.write_text("attempts = 6")
        for settings in (GuardSettings(attempts=6), {"attempts": 6}, file, str(file)):
            assert GuardAdapter(settings, pool_maxsize=4).settings.attempts == 6
        assert GuardAdapter(None).settings == GuardAdapter().settings

    def test_beyond_the_settings_are_a_clear_error(self):
        for more in ((20,), ([print],), (20, 0, True)):
            with pytest.raises(TypeError, match="GuardAdapter takes either its settings by position"):
                GuardAdapter(GuardSettings(), *more)
        with pytest.raises(TypeError, match="its settings twice"):
            GuardAdapter(GuardSettings(), settings=GuardSettings())

    def test_that_are_given_twice_or_too_many_fail_as_in_the_stock_adapter(self):
        for adapter in (HTTPAdapter, GuardAdapter):
            with pytest.raises(TypeError, match="multiple values for argument 'pool_connections'"):
                adapter(10, pool_connections=10)
            with pytest.raises(TypeError, match="takes from 1 to 5 positional arguments but 6 were given"):
                adapter(10, 10, 0, False, None)

    def test_a_switch_is_no_number(self):
        with pytest.raises(SettingsError, match="source=True"):
            GuardAdapter(True)

    def test_a_class_that_inherits_from_more_takes_more(self):
        class Limited(HTTPAdapter):
            def __init__(self, *args, timeout, **kwargs):
                self.timeout = timeout
                super().__init__(*args, **kwargs)

        class Both(GuardAdapter, Limited):
            pass

        both = Both(settings={"timeout": 9}, timeout=5, pool_maxsize=4)
        assert (both.timeout, both.settings.timeout, self.pool(both)[1]) == (5, 9, 4)


class TestTwoGuards:
    def test_a_guard_inside_a_guard_warns_when_it_is_made_and_only_sends(self, crm, session, clock, lead):
        with pytest.warns(UserWarning, match="a guard sends through another guard") as warned:
            guard = GuardAdapter(clock=clock, inner=GuardAdapter(clock=clock))
        assert [warning.filename for warning in warned] == [__file__]
        session.mount(crm.url, guard)
        assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200

    def test_one_that_is_hidden_in_another_adapter_is_found_and_warns_once(self, crm, session, clock):
        class Tracing(BaseAdapter):
            def __init__(self, inner):
                self.inner = inner

            def send(self, *args, **kwargs):
                return self.inner.send(*args, **kwargs)

            def close(self):
                self.inner.close()

        hidden = GuardAdapter(clock=clock, settings={"attempts": 5})
        session.mount(crm.url, Tracing(hidden))
        stuck = crm.add_record("Leads", state="zia_vision_validation")
        with (
            install(crm.url, clock=clock, settings={"attempts": 3}),
            pytest.warns(UserWarning, match="a guard sends through another guard") as warned,
            pytest.raises(RecordLockedError),
        ):
            session.put(f"{crm.url}/crm/v8/Leads/{stuck}", json=ROW)
        assert len(warned) == 1
        assert len(crm.calls) == 3
        with pytest.raises(RecordLockedError):
            session.put(f"{crm.url}/crm/v8/Leads/{stuck}", json=ROW)
        assert len(crm.calls) == 8  # alone, it guards


class TestInstalling:
    def test_sessions_made_before_and_after_and_no_session_at_all(self, crm, clock, session):
        leads = [crm.add_record("Leads", locked_for=5.0) for _ in range(3)]
        with install(crm.url, clock=clock), requests.Session() as later:
            for how, lead in zip((session, later, requests), leads, strict=True):
                crm.set_state(lead, "zia_vision_validation", locked_for=5.0)
                assert how.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
        assert crm.write_counts == dict.fromkeys(leads, 1)

    def test_other_urls_keep_the_sessions_own_adapter(self, session):
        with install():
            assert session.get_adapter("https://www.zoho.com/") is session.adapters["https://"]
            assert (
                session.get_adapter("https://www.zohoapis.com.evil.test/crm/v8/Leads")
                is session.adapters["https://"]
            )

    def test_a_session_with_a_guard_keeps_it(self, session):
        mine = mount_guard(session)
        with install() as shared:
            assert session.get_adapter(CRM) is mine is not shared

    def test_a_session_of_a_subclass_that_chooses_its_adapter_itself(self, crm, clock, lead):
        class Choosy(requests.Session):
            asked = 0

            def get_adapter(self, url):
                self.asked += 1
                return super().get_adapter(url)

        with install(crm.url, clock=clock), Choosy() as session:
            assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
        assert session.asked == 1

    def test_a_client_that_mounts_its_own_adapter_later_keeps_it_as_inner(self, crm, clock, session, lead):
        with install(crm.url, clock=clock):
            own = Counting()
            session.mount("http://", own)
            response = session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW)
        assert response.status_code == 200
        assert own.sent == len(crm.calls) > 1
        assert response.connection.inner is own

    @pytest.mark.parametrize(
        "arguments", [{"max_retries": Retry(total=None, connect=2)}, {"pool_maxsize": 50}, {"pool_block": True}]
    )
    def test_a_stock_adapter_with_arguments_of_its_own_is_kept_too(self, session, arguments):
        own = HTTPAdapter(**arguments)
        session.mount("https://", own)
        with install():
            assert session.get_adapter(CRM).inner is own

    def test_an_adapter_that_is_replaced_during_the_wait_still_sends(self, crm, clock, session, lead):
        first = Counting()
        session.mount("http://", first)
        clock.during_wait = lambda: session.mount("http://", Counting())
        with install(crm.url, clock=clock):
            assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
        assert first.sent == len(crm.calls)

    def test_connections_outlive_the_sessions_that_made_them(self, crm, clock):
        lead = crm.add_record("Leads")
        with install(crm.url, clock=clock):
            for _ in range(20):
                with requests.Session() as session:
                    session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW)
        assert crm.connections == 1

    def test_sessions_that_check_certificates_share_no_connection_with_those_that_do_not(self):
        request = requests.Request("GET", CRM).prepare()
        with install() as guard:
            pools = [guard.get_connection_with_tls_context(request, verify) for verify in (True, False, True)]
        assert pools[0] is pools[2] is not pools[1]

    def test_retries_by_status_warn_once_however_many_sessions_have_them(self):
        def choose():
            with requests.Session() as session:
                session.mount("https://", HTTPAdapter(max_retries=REPEATING))
                session.get_adapter(LEADS)

        with install():
            with pytest.warns(UserWarning, match="status_forcelist") as warned:
                choose()
            choose()
        assert [warning.filename for warning in warned] == [__file__]

    def test_retries_warn_at_the_first_crm_call_and_not_at_other_urls_of_the_host(self, session):
        session.mount("https://", HTTPAdapter(max_retries=REPEATING))
        with install():
            session.get_adapter(ELSEWHERE)
            with pytest.warns(UserWarning, match="status 500, 502") as warned:
                session.get_adapter(LEADS)
            session.get_adapter(LEADS)
            session.get_adapter(ELSEWHERE)
        assert len(warned) == 1

    def test_retries_of_429_alone_do_not_warn(self, session):
        session.mount("https://", HTTPAdapter(max_retries=ONLY_429))
        with install():
            assert session.get_adapter(LEADS).inner.max_retries is ONLY_429

    def test_a_thousand_sessions_leave_nothing_behind(self):
        def guards():
            gc.collect()
            return sum(isinstance(found, GuardAdapter) for found in gc.get_objects())

        with install():
            before, references = guards(), []
            for _ in range(1000):
                with requests.Session() as session:
                    own = Counting()
                    session.mount("https://", own)
                    assert session.get_adapter(CRM).inner is own
                    references.append(weakref.ref(own))
            del session, own
            assert guards() == before
        assert [reference() for reference in references] == [None] * 1000

    def test_closing_the_shared_guard_ends_no_call(self, crm, clock, session, lead):
        session.mount("http://", Counting())
        with install(crm.url, clock=clock) as guard:
            clock.during_wait = guard.close
            for how in (session, requests):
                crm.set_state(lead, "zia_vision_validation", locked_for=5.0)
                assert how.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200

    def test_a_session_can_be_copied_and_pickled_meanwhile(self, session):
        with install() as guard:
            for twin in (copy.deepcopy(session), pickle.loads(pickle.dumps(session))):  # noqa: S301
                assert twin.get_adapter(CRM) is guard
                assert not any(isinstance(adapter, GuardAdapter) for adapter in twin.adapters.values())


class TestUninstalling:
    def test_without_an_installation_it_does_nothing(self):
        before = requests.Session.get_adapter
        uninstall()
        uninstall()
        assert requests.Session.get_adapter is before

    def test_installing_twice_is_as_good_as_once(self, session):
        for _ in range(3):
            install(settings={"attempts": 4})
        guard = session.get_adapter(CRM)
        assert guard.settings.attempts == 4
        uninstall()
        assert session.get_adapter(CRM) is session.adapters["https://"]

    def test_blocks_with_the_same_arguments_share_a_guard_until_the_last_one_ends(self, session):
        with install() as outer:
            with install() as inner:
                assert inner is outer
            assert session.get_adapter(CRM) is outer
        assert session.get_adapter(CRM) is session.adapters["https://"]

    def test_installations_with_other_arguments_nest(self, session):
        with install() as outer:
            with install("https://www.zohoapis.eu", settings={"attempts": 4}) as inner:
                assert session.get_adapter("https://www.zohoapis.eu/crm/v8/Leads") is inner
                assert session.get_adapter(CRM) is outer
            assert session.get_adapter("https://www.zohoapis.eu/crm/v8/Leads") is outer

    def test_a_block_takes_back_just_its_own_whatever_came_after(self, session):
        with install() as first:
            second = install(settings={"attempts": 4}).__enter__()
            assert session.get_adapter(CRM) is second
        assert session.get_adapter(CRM) is second is not first
        uninstall()

    def test_a_block_that_was_taken_back_meanwhile_ends_without_harm(self):
        with install(), install(settings={"attempts": 4}):
            uninstall()
            uninstall()

    def test_a_call_that_waits_finishes_under_the_guard(self, crm, clock, lead):
        clock.during_wait = uninstall
        install(crm.url, clock=clock)
        assert requests.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
        assert crm.writes(lead) == 1

    def test_a_call_that_is_about_to_take_a_connection_gets_one(self, crm, clock):
        lead = crm.add_record("Leads")
        install(crm.url, clock=clock)
        with requests.Session() as session:
            guard = session.get_adapter(crm.url + "/")
            pool = guard.poolmanager.connection_from_url(crm.url)
            uninstall()
            assert pool.request("GET", f"/crm/v8/Leads/{lead}").status == 200

    def test_nothing_is_left_of_a_guard_that_nobody_holds(self, crm, clock):
        install(crm.url, clock=clock)
        with requests.Session() as session:
            guard = weakref.ref(session.get_adapter(crm.url + "/"))
        requests.get(f"{crm.url}/crm/v8/org")
        uninstall()
        gc.collect()
        assert guard() is None

    def test_idle_connections_are_closed_even_if_somebody_holds_the_guard(self, crm, clock):
        with install(crm.url, clock=clock) as guard:
            requests.get(f"{crm.url}/crm/v8/org")
            pool = weakref.ref(guard.poolmanager.connection_from_url(crm.url))
        gc.collect()
        assert pool() is None

    def test_patches_by_others_survive_in_any_order_of_undoing(self, session):
        original = requests.Session.get_adapter
        install()
        patch = mock.patch.object(
            requests.Session, "get_adapter", autospec=True, side_effect=requests.Session.get_adapter
        )
        patch.start()
        assert isinstance(session.get_adapter(CRM), GuardAdapter)
        uninstall()
        assert session.get_adapter(CRM) is session.adapters["https://"]
        with install() as guard:
            assert session.get_adapter(CRM) is guard
        patch.stop()
        with install() as guard:
            assert session.get_adapter(CRM) is guard
        assert requests.Session.get_adapter is original

    @pytest.mark.parametrize("last", ["the guard", "the other"])
    def test_a_class_in_the_place_of_session_makes_no_difference(self, monkeypatch, session, last):
        """As `requests_cache.install_cache` puts one there, which the tests of clients have for real."""

        class Other(requests.Session):
            pass

        class Choosy(Other):
            def get_adapter(self, url):
                return next(found for prefix, found in self.adapters.items() if url.startswith(prefix))

        own, plain = vars(Choosy)["get_adapter"], requests.Session
        with Other() as other, Choosy() as choosy:
            everybody = (session, other, choosy)
            with contextlib.ExitStack() as installed, monkeypatch.context() as patch:
                patch.setattr(requests, "Session", Choosy)
                guard = installed.enter_context(install())
                assert [found.get_adapter(CRM) for found in everybody] == [guard] * 3
                if last == "the guard":
                    patch.undo()
                    assert [found.get_adapter(CRM) for found in everybody] == [guard] * 3
                installed.close()
                assert not any(isinstance(found.get_adapter(CRM), GuardAdapter) for found in everybody)
        assert vars(Choosy)["get_adapter"] is own
        assert "get_adapter" not in vars(Other)
        assert requests.Session is plain

    def test_a_mock_in_the_place_of_session_does_no_harm(self, session):
        with mock.patch("requests.Session"), install() as guard:
            assert session.get_adapter(CRM) is guard

    def test_a_patch_that_throws_the_hook_away_does_not_keep_it_from_coming_back(self, session):
        original = requests.Session.get_adapter
        install()
        requests.Session.get_adapter = original
        uninstall()
        with install() as guard:
            assert session.get_adapter(CRM) is guard


class TestThreads:
    def test_calls_go_on_while_others_install_and_uninstall(self, crm, together):
        lead = crm.add_record("Leads")
        policy = GuardSettings(wait_initial=0.005, wait_max=0.01)
        original = requests.Session.get_adapter

        def switch():
            for _ in range(30):
                with install(crm.url, settings=policy):
                    requests.get(f"{crm.url}/crm/v8/org")

        def call():
            return {requests.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code for _ in range(30)}

        results = together([switch, switch, call, call])
        assert results == [None, None, {200}, {200}]
        assert requests.Session.get_adapter is original

    def test_many_threads_share_the_guard(self, crm, together):
        leads = [crm.add_record("Leads", refusals=2) for _ in range(16)]
        policy = GuardSettings(wait_initial=0.005, wait_max=0.01, share_locks=False)
        with install(crm.url, settings=policy):
            calls = [lambda lead=lead: requests.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW) for lead in leads]
            assert {response.status_code for response in together(calls)} == {200}
        assert crm.write_counts == dict.fromkeys(leads, 1)
        assert crm.connections <= 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_begins_with_connections_and_mutexes_of_its_own(crm, clock):
    lead = crm.add_record("Leads")
    url = f"{crm.url}/crm/v8/Leads/{lead}"
    held, release = threading.Event(), threading.Event()

    with install(crm.url, clock=clock) as guard:
        requests.put(url, json=ROW)
        pool = guard.poolmanager

        def hold():
            with pool.pools.lock:
                held.set()
                release.wait(10)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(10)
        child = os.fork()
        if child == 0:
            answered = requests.put(url, json=ROW, timeout=5).status_code
            os._exit(0 if answered == 200 and guard.poolmanager is not pool else 1)
        release.set()
        holder.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert requests.put(url, json=ROW).status_code == 200
        assert guard.poolmanager is pool
    assert [call.connection for call in crm.calls] == [1, 2, 1]
