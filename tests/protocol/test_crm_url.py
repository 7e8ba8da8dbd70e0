"""Whether a URL is a CRM call, and where its path goes on: the pattern decides the first, never the second."""

import pytest

from crm_guard import GuardAdapter, GuardSettings, RecordLockedError, get_report
from crm_guard._protocol.crm_url import CrmUrl, tail_finder
from crm_guard.settings import DEFAULT_PATH_PATTERN

ORIGIN = "https://www.zohoapis.com"
USUAL = [
    ("/crm/v8/Leads", "Leads"),
    ("/crm/v2.1/Leads/1?x=/v3/", "Leads/1?x=/v3/"),
    ("/crm/sandbox/v9/Leads", "Leads"),
    ("/crm/v8/", ""),
]
NONE = [
    "/crm/v8",
    "/crm/x?y=/v8/Leads",
    "/crm/x#y/v8/Leads",
    "/crm/v/Leads",
    "/",
    "",
    "?path=/crm/v8/Leads",
]


@pytest.mark.parametrize(
    "origin", [ORIGIN, "http://127.0.0.1:8070", "https://[::1]:1", "HTTPS://user:pw@crm.example"]
)
@pytest.mark.parametrize(("path", "tail"), USUAL)
def test_a_crm_url_goes_on_behind_its_version(origin, path, tail):
    for pattern in (DEFAULT_PATH_PATTERN, "/", "/crm/"):
        url = origin + path
        assert url[tail_finder(pattern)(url) :] == tail
        assert CrmUrl.of(url).rest == tail
    assert CrmUrl.of(path).rest == tail


@pytest.mark.parametrize("path", NONE)
def test_other_urls_are_no_crm_calls(path):
    for pattern in (DEFAULT_PATH_PATTERN, "/", "/crm/"):
        assert tail_finder(pattern)(ORIGIN + path) == -1
    assert CrmUrl.of(ORIGIN + path).tail == -1


@pytest.mark.parametrize(
    ("path", "tail"),
    [
        ("/crm/a/b/v8/Leads", "Leads"),
        ("/zoho/crm/v8/Leads", "Leads"),
        ("/proxy/v8/Leads/1", "Leads/1"),
        ("/v2/crm/v8/Leads", "Leads"),
    ],
)
def test_a_gateway_may_stand_before_the_path_and_leave_out_crm(path, tail):
    url = ORIGIN + path
    assert url[tail_finder("/")(url) :] == tail
    assert tail_finder(DEFAULT_PATH_PATTERN)(url) == -1
    assert tail_finder("/other/")(url) == -1


def test_the_version_is_the_last_segment_before():
    assert CrmUrl.of("https://x/crm/v2.1/Leads").version == "v2.1"
    assert CrmUrl.of("Leads").version == ""


@pytest.mark.parametrize("pattern", ["/", "/crm", "/crm/(sandbox/)?", r"(?i)/CRM/v\d", r"^/crm/v8/", r"\A/crm"])
class TestAPatternOfOnesOwn:
    def test_narrows_a_batch_as_the_usual_one_does(self, crm, guard, leads, pattern):
        ids = [crm.add_record("Leads", refusals=count or None) for count in (0, 2, 0)]
        rows = {"data": [{"id": lead, "Company": "Zylker"} for lead in ids]}
        response = guard(path_pattern=pattern).put(leads, json=rows)
        assert (response.status_code, get_report(response).attempts) == (200, 3)
        assert [call.record_ids for call in crm.calls] == [tuple(ids), (ids[1],), (ids[1],)]
        assert set(crm.write_counts.values()) == {1}

    def test_finds_the_record_in_the_path(self, crm, guard, leads, pattern):
        lead = crm.add_record("Leads", state="zia_vision_validation")
        with pytest.raises(RecordLockedError) as caught:
            guard(path_pattern=pattern, timeout=0).put(f"{leads}/{lead}", json={"data": [{}]})
        assert caught.value.record_ids == (lead,)


def test_a_pattern_that_does_not_match_leaves_the_call_alone(crm, guard, leads):
    lead = crm.add_record("Leads", state="zia_vision_validation")
    assert guard(path_pattern="/other/").put(f"{leads}/{lead}", json={"data": [{}]}).status_code == 400
    assert not GuardAdapter(GuardSettings(path_pattern="/other/")).guards(f"{leads}/{lead}")
    assert GuardAdapter(GuardSettings()).guards(f"{leads}/{lead}")
