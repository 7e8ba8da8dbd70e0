"""The plugin in runs of pytest: what it costs, its markers, its report, and beside other plugins and libraries."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

import pytest
import requests
import responses  # noqa: F401 (here: what an inner run imports first is forgotten afterwards)
import urllib3
import vcr  # noqa: F401

import crm_guard
from crm_guard._testing.call_log import call_lines
from crm_guard._testing.marks import marked_options, marked_settings
from tests.documents.pages import READ_ME_EXAMPLES, examples

TESTS = [example for example in (*READ_ME_EXAMPLES, *examples("testing")) if "def test_" in example]
PUT = """
def put(session, url, lead):
    return session.put(f"{url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]})
"""


def names(example):
    return sum(line.lstrip().startswith("def test_") for line in example.splitlines())


def test_the_examples_of_the_documents_pass(inner, pytester):
    result = inner(**{f"test_{number}": example for number, example in enumerate(TESTS)})
    result.assert_outcomes(passed=sum(map(names, TESTS)))
    assert len(TESTS) >= 7
    assert not list(pytester.path.glob("*.yaml"))  # nothing to record


CASSETTE = """
version: 1
interactions:
- request: {method: POST, uri: "https://chat.example/hook", body: '{}', headers: {}}
  response: {status: {code: 201, message: Created}, headers: {}, body: {string: ""}}
"""
BOTH = """
import pytest
import requests
import responses
import vcr
from crm_guard.testing import ZOHO_URLS

LEADS = "https://www.zohoapis.com/crm/v8/Leads"
ROW = {"data": [{"Company": "Zylker"}]}

@pytest.fixture
def replayed():
    with vcr.use_cassette("chat.yaml", ignore_localhost=True, record_mode="none") as cassette:
        yield cassette

@pytest.fixture
def mocked():
    with responses.RequestsMock() as mock:
        mock.add_passthru(ZOHO_URLS)
        mock.post("https://chat.example/hook", status=202)
        yield mock

def works(crm, session):
    assert session.put(f"{LEADS}/{crm.add_record('Leads', '1', locked_for=60.0)}", json=ROW).ok
    assert crm.writes("1") == 1
    return requests.post("https://chat.example/hook", data="{}").status_code

def test_a_cassette_from_before(replayed, zoho_crm, guarded_session):
    assert works(zoho_crm, guarded_session) == 201
    assert replayed.play_count == 1

def test_a_cassette_from_after(zoho_crm, guarded_session, replayed):
    assert works(zoho_crm, guarded_session) == 201

def test_a_mock_from_before(mocked, zoho_crm, guarded_session):
    assert works(zoho_crm, guarded_session) == 202

def test_a_mock_from_after(zoho_crm, guarded_session, mocked):
    assert works(zoho_crm, guarded_session) == 202

@responses.activate
def test_a_mock_of_zoho_itself_comes_first(zoho_crm, guarded_session):
    responses.put(f"{LEADS}/1", status=418)
    assert guarded_session.put(f"{LEADS}/1", json=ROW).status_code == 418
    assert zoho_crm.calls == ()
"""


def test_responses_and_vcrpy_answer_for_other_hosts_whatever_begins_first(inner, pytester):
    pytester.path.joinpath("chat.yaml").write_text(CASSETTE)
    inner(test_both=BOTH).assert_outcomes(passed=5)
    assert pytester.path.joinpath("chat.yaml").read_text() == CASSETTE


LONG_LIVED = """
import pytest
import requests
from crm_guard.testing import simulated_zoho

@pytest.fixture(scope="session")
def crm():
    with simulated_zoho() as crm:
        yield crm

@pytest.fixture
def late(request, zoho_crm):
    return request.getfixturevalue("crm")

@pytest.mark.parametrize("number", range(2))
def test_it_is_asked_for_late(zoho_crm, late, number):
    late.add_record("Leads", str(number))
    status = requests.get(f"https://www.zohoapis.com/crm/v8/Leads/{number}").status_code
    assert status == (204 if number else 200)  # zoho_crm, which has no such lead, began later from the second on

def test_it_lives_on(crm):
    assert requests.get("https://www.zohoapis.com/crm/v8/Leads/0").ok
"""


def test_a_simulation_of_the_session_that_begins_within_a_test_lives_on(inner):
    before = urllib3.PoolManager.connection_from_host
    inner(test_it=LONG_LIVED).assert_outcomes(passed=3)
    assert urllib3.PoolManager.connection_from_host is before


COST = """
import sys

def pytest_sessionfinish():
    ours = sorted(name for name in sys.modules if name.split(".")[0] == "crm_guard")
    others = {"requests", "urllib3", "msgspec", "http.server", "socketserver", "werkzeug"} & sys.modules.keys()
    print("\\nloaded", *ours, *sorted(others))
"""


def test_where_it_is_not_used_nothing_is_loaded(pytester):
    pytester.makeconftest(COST)
    pytester.makepyfile("def test_of_something_else(): pass")
    quiet = ["-p", "no:cacheprovider", "-p", "crm_guard"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *quiet],
        env={"PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("loaded")]
    assert line.split()[1:] == ["crm_guard", "crm_guard.pytest_plugin"]


def test_the_package_says_that_it_is_a_plugin():
    (found,) = importlib.metadata.entry_points(group="pytest11", name="crm_guard")
    assert found.value == "crm_guard.pytest_plugin"


def test_it_can_be_switched_off(installed):
    result = installed("-p", "no:crm_guard", module="def test_x(zoho_crm): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'zoho_crm' not found*"])


def test_fixtures_and_markers_are_listed(inner):
    fixtures, markers = (inner(option, test_it="").stdout.str() for option in ("--fixtures", "--markers"))
    for name in ("zoho_crm", "zoho_clock", "guarded_session", "crm_guard_settings"):
        assert f"\n{name} -- " in fixtures
    assert "@pytest.mark.crm_guard(**settings)" in markers
    assert "@pytest.mark.zoho_crm(**options)" in markers


def test_each_worker_of_xdist_has_a_simulator(installed):
    body = "\n\n@pytest.mark.parametrize('number', range(2))\ndef test_put(zoho_crm, guarded_session, number):\n"
    body += "    lead = zoho_crm.add_record('Leads', '1', locked_for=60.0)\n"
    body += "    assert put(guarded_session, zoho_crm.url, lead).ok\n    assert zoho_crm.write_counts == {'1': 1}\n"
    body += "    assert number\n"
    result = installed("-n2", module=f"import pytest\n{PUT}{body}")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Captured Zoho CRM calls teardown*", "*PUT /crm/v8/Leads/1 -> 200"])


class TestMarkers:
    SETTINGS = """
        import pytest
        import crm_guard

        pytestmark = pytest.mark.crm_guard(timeout=30, attempts=5)

        @pytest.mark.crm_guard(timeout=20, raise_on="partial")
        class TestIt:
            @pytest.mark.crm_guard(timeout=10)
            def test_nearest(self, crm_guard_settings, guarded_session, zoho_crm):
                expected = crm_guard.GuardSettings(timeout=10, raise_on="partial", attempts=5)
                assert crm_guard_settings == expected
                for url in (zoho_crm.url, "https://www.zohoapis.com", "https://sandbox.zohoapis.eu"):
                    assert guarded_session.get_adapter(url + "/").settings == expected

        def test_module(crm_guard_settings):
            assert crm_guard_settings == crm_guard.GuardSettings(timeout=30, attempts=5)
    """

    OWN = """
        import pytest
        import crm_guard

        @pytest.fixture
        def crm_guard_settings():
            return crm_guard.GuardSettings(timeout=3)

        def test_own(guarded_session):
            assert guarded_session.get_adapter("https://www.zohoapis.com/").settings.timeout == 3
    """
    OPTIONS = """
        import pytest

        pytestmark = pytest.mark.zoho_crm(token="a", credits=5)

        @pytest.mark.zoho_crm(token="b")
        def test_options(zoho_crm):
            assert zoho_crm.tokens == {"b"}
            assert zoho_crm.credits_remaining == 5
    """

    def test_they_are_merged_and_the_nearest_wins_whatever_the_environment_says(self, inner, monkeypatch):
        monkeypatch.setenv("CRM_GUARD_TIMEOUT", "7")
        monkeypatch.setenv("CRM_GUARD_UNKNOWN", "7")
        result = inner(test_settings=self.SETTINGS, test_own=self.OWN, test_options=self.OPTIONS)
        result.assert_outcomes(passed=4)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"timout": 3}, "unknown setting 'timout', did you mean timeout?"),
            ({"timeout": -1}, "timeout=-1 must be a number of seconds, 0 or more"),
            ({"wait_max": 1}, "wait_max=1.0 must be at least wait_initial=3.0"),
        ],
    )
    def test_a_setting_that_is_wrong_is_named(self, given, said):
        with pytest.raises(crm_guard.SettingsError, match=rf"^@pytest.mark.crm_guard: {re.escape(said)}"):
            marked_settings([pytest.mark.crm_guard(**given).mark])

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"tokn": "x"}, "unknown option 'tokn', did you mean token? Allowed: caller, "),
            ({"latency": -1}, "latency=-1 is out of range"),
            ({"latency": "1"}, "'>=' not supported between instances of 'str' and 'int'"),
            ({"validation_result": "fine"}, "'fine' is not a valid State"),
            ({"clock": None}, "the clock is that of the fixture zoho_clock"),
        ],
    )
    def test_an_option_that_is_wrong_is_named(self, given, said):
        with pytest.raises(ValueError, match=rf"^@pytest.mark.zoho_crm: {re.escape(said)}"):
            marked_options([pytest.mark.zoho_crm(**given).mark])

    def test_a_mistake_is_shown_without_our_traceback(self, inner):
        bad = "import pytest\n@pytest.mark.crm_guard({'timeout': 3})\ndef test_a(guarded_session): pass\n"
        bad += "@pytest.mark.zoho_crm(latency=-1)\ndef test_b(guarded_session): pass"
        result = inner(test_bad=bad)
        result.assert_outcomes(errors=2)
        shown = [line for line in result.stdout.lines if line.startswith("@pytest.mark")]
        assert shown == [
            "@pytest.mark.crm_guard: takes keyword arguments alone, not 1 by position",
            "@pytest.mark.zoho_crm: latency=-1 is out of range",
        ]
        assert "crm_guard/" not in result.stdout.str()


class TestReport:
    FAILS = f"""{PUT}
def test_fails(zoho_crm, guarded_session):
    zoho_crm.fault("reset", times=1)
    lead = zoho_crm.add_record("Leads", "1", refusals=1)
    guarded_session.headers["Authorization"] = "Zoho-oauthtoken hidden"
    try:
        put(guarded_session, zoho_crm.url, lead)
    except OSError:
        pass
    for number in range(30):
        put(guarded_session, zoho_crm.url, lead)
    guarded_session.get(f"{{zoho_crm.url}}/crm/v8/Leads/1?fields=private")
    assert not zoho_crm.calls

def test_passes(zoho_crm):
    pass

def test_fails_without_a_call(zoho_crm):
    assert zoho_crm.calls
"""

    def test_a_failed_test_shows_the_latest_calls_and_no_secret(self, inner):
        result = inner(test_it=self.FAILS)
        result.assert_outcomes(failed=2, passed=1)
        lines = result.stdout.lines
        start = next(number for number, line in enumerate(lines) if "Captured Zoho CRM calls" in line)
        assert lines[start + 1] == "... 3 calls before"
        calls = [line.split("  ")[-1] for line in lines[start + 2 : start + 32]]
        assert calls == [*["PUT /crm/v8/Leads/1 -> 200"] * 29, "GET /crm/v8/Leads/1 -> 200"]
        shown = "\n".join(lines[start:])
        assert "hidden" not in shown
        assert "private" not in shown
        assert result.stdout.str().count("Captured Zoho CRM calls") == 1

    def test_a_line_tells_refusals_and_faults(self, zoho_crm):
        zoho_crm.fault("reset", times=1)
        zoho_crm.add_record("Leads", "1", refusals=1)
        with pytest.raises(requests.ConnectionError):
            requests.put("https://www.zohoapis.com/crm/v8/Leads/1", json={"data": [{"Company": "Zylker"}]})
        requests.put("https://www.zohoapis.com/crm/v8/Leads/1", json={"data": [{"Company": "Zylker"}]})
        assert call_lines(zoho_crm.calls, zoho_crm.answered).splitlines() == [
            "     0.0 s  PUT /crm/v8/Leads/1 -> no answer, fault: reset",
            "     0.0 s  PUT /crm/v8/Leads/1 -> 400, refused: 1",
        ]
