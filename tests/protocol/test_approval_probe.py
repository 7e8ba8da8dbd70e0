"""Diagnosis: a probe that nothing can steer, an answer that cannot hurt, one case per state."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from crm_guard._protocol.approval_case import choose
from crm_guard._protocol.approval_probe import Probe, build_probes, read_states, refused_scope
from crm_guard._transport.scopes import ScopeMemory
from crm_guard.remediation import ApprovalCase, Family, candidates, hint_for_candidates, hint_for_case

REJECTED, RECORD, IMAGE, PROCESS, REVIEW = ApprovalCase
PHOTOS = (Family.PHOTO_READ, Family.PHOTO_WRITE)
CORPUS = Path(__file__).parents[1] / "corpus"
LEADS = "https://www.zohoapis.com/crm/v8/Leads"
TOKEN = "Zoho-oauthtoken 1000.secret"
STATES = (
    "approved",
    "approval_process_pending",
    "approval_process_rejected",
    "review_process_pending",
    "review_process_rejected",
    "zia_vision_validation",
    "zia_vision_pending",
    "zia_vision_rejected",
    "merge_pending",
    "webform_unapproved",
    "webform_invalid",
    "webform_invalid_approval",
    "webform_double_optin",
    "email_parser_waiting",
    "email_parser_rejected",
)


def probes(url=LEADS, *, module="Leads", ids=("1",), headers=None):
    return build_probes(url=url, module=module, ids=ids, headers=headers or {})


def asked(probe):
    return {name: values[0] for name, values in parse_qs(urlsplit(probe.url).query).items()}


class TestProbe:
    def test_it_asks_for_the_state_of_records_approved_or_not(self):
        [probe] = probes(ids=("3000000038009", "111112000000075003"))
        assert probe.url.startswith(f"{LEADS}?ids=3000000038009,111112000000075003&")
        assert asked(probe) == {
            "ids": "3000000038009,111112000000075003",
            "fields": "id,$approval_state",
            "approved": "both",
            "converted": "both",
            "per_page": "200",
        }

    def test_requests_sends_its_url_as_it_is(self):
        [probe] = probes(ids=("1", "2"))
        assert requests.Request("GET", probe.url).prepare().url == probe.url

    @pytest.mark.parametrize(
        ("url", "base"),
        [
            (f"{LEADS}/1/photo", LEADS),
            (f"{LEADS}/actions/mass_update?x=1#y", LEADS),
            ("http://127.0.0.1:8080/crm/v2.1/Leads?ids=1", "http://127.0.0.1:8080/crm/v2.1/Leads"),
            ("http://[::1]:9/crm/v8/Leads", "http://[::1]:9/crm/v8/Leads"),
            ("https://a.test/crm/x/v2.1/Leads/v9", "https://a.test/crm/x/v2.1/Leads"),
            ("https://a.test/v1/gate/crm/v8/__composite_requests", "https://a.test/v1/gate/crm/v8/Leads"),
            ("https://me:pw@a.test/crm/v8/Leads", "https://a.test/crm/v8/Leads"),
        ],
    )
    def test_it_keeps_origin_and_version_and_drops_credentials_and_the_rest(self, url, base):
        [probe] = probes(url)
        assert probe.url.partition("?")[0] == base

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "/crm/v8/Leads",
            "ftp://a.test/crm/v8/Leads",
            "https:///crm/v8/Leads",
            "https://a.test/books/v3/Leads",
            "https://a.test/crm/v8",
            "https://a.test/x?/crm/v8/Leads",
            "https://a.test#/crm/v8/Leads",
            "https://a.test/../crm/v8/Leads",
            "https://a.test/crm/../v8/Leads",
            "https://a.test/crm/%2e%2e/v8/Leads",
            "https://good.test\\@evil.test/crm/v8/Leads",
            "https://good.test@evil.test@x/crm/v8/Leads",
            "https://a.test /crm/v8/Leads",
            "https://a.te\nst/crm/v8/Leads",
            "https://\u212aa.test/crm/v8/Leads",
            "https://a.test:port/crm/v8/Leads",
            "https://a.test/crm/v\u0668/Leads",
        ],
    )
    def test_a_url_that_is_not_plainly_a_crm_call_is_not_followed(self, url):
        assert probes(url) == ()

    @pytest.mark.parametrize(
        "module", ["", "..", "Leads/1", "Leads?x", "Le ads", "Leads\n", "1Leads", "__x", "L\u00e9ads", "L" * 101]
    )
    def test_a_module_that_is_no_api_name_is_not_asked(self, module):
        assert probes(module=module) == ()

    def test_each_record_is_asked_once_in_order_a_hundred_at_a_time(self):
        ids = [str(n) for n in range(250)]
        made = probes(ids=[*ids, *ids])
        assert [len(probe.ids) for probe in made] == [100, 100, 50]
        assert [key for probe in made for key in probe.ids] == ids
        assert all(asked(probe)["ids"].split(",") == list(probe.ids) for probe in made)

    @pytest.mark.parametrize(
        "hostile",
        [
            "../../users",
            "1&x=y",
            "1\n2",
            "1\n",
            " 1",
            "-1",
            "1_0",
            "1.0",
            "\u0663\u0664",
            "\u00b2",
            "%31",
            "1" * 26,
            "",
        ],
    )
    def test_an_id_that_is_no_decimal_string_is_left_out(self, hostile):
        [probe] = probes(ids=(hostile, "7"))
        assert probe.ids == ("7",)
        assert probes(ids=(hostile,)) == ()

    def test_only_what_says_who_asks_travels(self):
        kept = {
            "AUTHORIZATION": TOKEN,
            "X-ZOHO-Trace": "1",
            "x-com-zoho-crm-organizationid": "2",
            "X-CRM-ORG": "3",
            "orgId": "4",
            "Host": "www.zohoapis.com",  # the token must not reach another host at the same address
        }
        left = {
            "Accept": "image/png",
            "Cookie": "session=1",
            "Content-Type": "text/plain",
            "Content-Length": "5",
            "If-Modified-Since": "now",
            "If-Unmodified-Since": "now",
            "X-EXTERNAL": "Leads.Ref",
            "X-HTTP-Method-Override": "DELETE",
            "Proxy-Authorization": "Basic 1",
        }
        [probe] = probes(headers=left | kept)
        assert dict(probe.headers) == kept | {"Accept": "application/json"}

    def test_its_repr_does_not_show_the_token(self):
        [probe] = probes(headers={"Authorization": TOKEN})
        assert "secret" not in repr(probe)

    @settings(max_examples=40)
    @given(
        ids=st.lists(st.one_of(st.text(), st.from_regex(r"[0-9]{1,30}"), st.text("0123456789&=?#/.\r\n,%"))),
        module=st.one_of(st.text(), st.from_regex(r"[A-Za-z][\w./?#-]*"), st.just("Leads")),
    )
    @example(ids=["../../users", "1&x=y", "1\r\nHost: evil.test", "1#", "1,2"], module="Leads")
    def test_no_id_and_no_module_can_steer_it(self, ids, module):
        for probe in probes(ids=ids, module=module):
            parts = urlsplit(probe.url)
            assert re.fullmatch(r"/crm/v8/[A-Za-z][A-Za-z0-9_]*", parts.path)
            assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "www.zohoapis.com", "")
            assert list(asked(probe)) == ["ids", "fields", "approved", "converted", "per_page"]
            assert asked(probe)["ids"] == ",".join(probe.ids)
            assert set(probe.ids) <= set(ids)

    @given(
        st.one_of(
            st.text(),
            st.from_regex(r"https?://[^\x00-\x20]{1,30}/crm/v[0-9]/Leads", fullmatch=True),
            st.builds(
                "{}://{}{}{}/crm/v8/Leads{}".format,
                st.sampled_from(["http", "https", "HTTPS", "https:"]),
                st.sampled_from(["", "me:pw@", "good.test\\@", "a@b@", "@", "good.test:80@", "%40@"]),
                st.sampled_from(["www.zohoapis.com", "[::1]", "127.1", "evil.test.", "a..b", "a_b", "\u2100.test"]),
                st.sampled_from(["", ":443", ":0", ":99999", ":8:8", "\\", "%00", "\t", "/.", "/;", "//evil.test"]),
                st.text("/?#.%\\@v8crm", max_size=12),
            ),
        )
    )
    def test_it_goes_where_the_guarded_request_went_or_nowhere(self, url):
        for probe in probes(url):
            try:
                went = parse_url(url)
            except LocationParseError:  # port 65536: nothing was ever sent there
                return
            sent = parse_url(probe.url)
            assert (sent.scheme, sent.host, sent.port) == (went.scheme, went.host, went.port)
            assert (sent.auth, sent.fragment) == (None, None)
            assert urlsplit(probe.url).hostname == urlsplit(url).hostname
            assert re.fullmatch(r"[!-~]+", probe.url)


class TestReadStates:
    def test_it_reads_a_documented_answer(self):
        sample = json.loads((CORPUS / "78_get_records_approval_states.json").read_text("utf-8"))
        assert read_states(json.dumps(sample["response"]["body"]).encode()) == {
            "111112000000142001": "zia_vision_validation",
            "111112000000142002": "zia_vision_rejected",
            "111112000000142003": "zia_vision_pending",
            "111112000000075003": "approval_process_pending",
        }

    @pytest.mark.parametrize(
        ("record", "state"),
        [
            ({"$in_merge": True}, "merge_pending"),
            ({"$in_merge": True, "$approval_state": "approved"}, "merge_pending"),
            ({"$in_merge": True, "$approval_state": "zia_vision_rejected"}, "zia_vision_rejected"),
            ({"$in_merge": "true", "$approval_state": "approved"}, "approved"),
            ({"$in_merge": False}, None),
            ({"$approval_state": None}, None),
            ({"$approval_state": ["approved"]}, None),
            ({"$approval_state": "approved\nx"}, None),
            ({"$approval_state": "a" * 65}, None),
        ],
    )
    def test_a_merge_counts_where_nothing_else_explains_the_refusal(self, record, state):
        body = json.dumps({"data": [{"id": "1", **record}]}).encode()
        assert read_states(body) == ({"1": state} if state else {})

    def test_one_bad_record_does_not_spoil_the_others(self):
        bad = [{"id": key, "$approval_state": "approved"} for key in (7, None, ["1"], "../x", "\u0663", {})]
        good = {"id": "2", "$approval_state": "zia_vision_rejected"}
        assert read_states(json.dumps({"data": [*bad, good]}).encode()) == {"2": "zia_vision_rejected"}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b'{"data": null}',
            b'{"data": {"id": "1"}}',
            b'{"data": [null]}',
            b'{"data": [[{"id": "1", "$approval_state": "approved"}]]}',
            b"<html>approved</html>",
            b'{"data": [{"id": "\xff"}]}',
            b'{"data": [{"id": "\\ud800", "$approval_state": "approved"}]}',
            b'{"data": [{"id": ' + b"9" * 5000 + b', "$approval_state": "approved"}]}',
            b'{"data": ' + b"[" * 200_000,
            b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            b'{"data": [{"id": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}]}",
        ],
        ids=lambda body: repr(body[:40]),
    )
    def test_what_is_no_such_answer_gives_nothing(self, body):
        assert read_states(body) == {}
        assert refused_scope(401, body) is False

    @settings(max_examples=40)
    @given(
        st.one_of(
            st.binary(),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()),
                lambda inner: st.one_of(
                    st.lists(inner),
                    st.dictionaries(st.sampled_from(["data", "id", "code", "$approval_state", "$in_merge"]), inner),
                ),
            ).map(lambda value: json.dumps(value).encode()),
        )
    )
    def test_no_answer_makes_it_raise_or_lets_anything_odd_through(self, body):
        refused_scope(401, body)
        for key, state in read_states(body).items():
            assert re.fullmatch(r"[0-9]{1,25}", key)
            assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", state)


@pytest.mark.parametrize(
    ("status", "code", "refused"),
    [
        (401, "OAUTH_SCOPE_MISMATCH", True),
        (403, "OAUTH_SCOPE_MISMATCH", True),
        (403, "NO_PERMISSION", True),
        (401, "INVALID_TOKEN", False),
        (400, "OAUTH_SCOPE_MISMATCH", False),
        (200, "NO_PERMISSION", False),
        (403, None, False),
        (403, ["NO_PERMISSION"], False),
    ],
)
def test_only_a_refused_scope_or_permission_is_one(status, code, refused):
    assert refused_scope(status, json.dumps({"code": code, "status": "error"}).encode()) is refused


# One line per documented state: the case, the case on photo calls, whether the hint says "probably".
CASES = {
    "approval_process_pending": (PROCESS, PROCESS, True),
    "approval_process_rejected": (PROCESS, PROCESS, False),
    "review_process_pending": (REVIEW, REVIEW, False),
    "review_process_rejected": (REVIEW, REVIEW, False),
    "zia_vision_pending": (RECORD, IMAGE, True),
    "zia_vision_rejected": (REJECTED, REJECTED, False),
    "approved": (None, IMAGE, True),
    "merge_pending": (None, None, False),
    "zia_vision_validation": (None, None, False),
    "webform_unapproved": (PROCESS, PROCESS, False),
    "webform_invalid": (PROCESS, PROCESS, False),
    "webform_invalid_approval": (PROCESS, PROCESS, False),
    "webform_double_optin": (PROCESS, PROCESS, True),
    "email_parser_waiting": (PROCESS, PROCESS, False),
    "email_parser_rejected": (PROCESS, PROCESS, False),
}


class TestChoose:
    def test_the_table_below_covers_every_documented_state(self):
        assert set(CASES) == set(STATES)

    @pytest.mark.parametrize("family", Family)
    @pytest.mark.parametrize("state", STATES)
    def test_state_and_call_make_the_case_and_its_one_hint(self, state, family):
        usual, on_photo, probable = CASES[state]
        case = on_photo if family in PHOTOS else usual
        found = choose("NOT_APPROVED", state, family)
        assert (found.case, found.state) == (case, state)
        assert found.recheck is (state == "zia_vision_validation")
        if case is None:
            assert found.candidates == candidates("NOT_APPROVED", family)
        else:
            assert found.candidates == (case,)
            assert found.hint == hint_for_case(case, family, state=state, probable=probable)
            assert ("probably" in found.hint) is probable

    @pytest.mark.parametrize("family", Family)
    def test_without_a_state_code_and_call_give_the_candidates(self, family):
        found = choose("NOT_APPROVED", None, family)
        assert (found.case, found.candidates) == (None, candidates("NOT_APPROVED", family))
        assert found.hint == hint_for_candidates("NOT_APPROVED", family)

    @pytest.mark.parametrize("state", ["brand_new", "Zia_Vision_Rejected", "xzia_vision_rejected", "merge_pending"])
    def test_a_state_that_settles_nothing_leaves_the_candidates_and_is_told(self, state):
        found = choose("NOT_APPROVED", state, Family.UPDATE)
        assert (found.case, found.candidates) == (None, (REJECTED, RECORD, PROCESS))
        assert found.hint == hint_for_candidates("NOT_APPROVED", Family.UPDATE, state=state)

    @pytest.mark.parametrize("state", ["webform_x\n", "approved ", "", "webform_" + "x" * 64])
    def test_a_state_that_is_no_word_counts_as_none(self, state):
        assert choose("NOT_APPROVED", state, Family.PHOTO_READ) == choose("NOT_APPROVED", None, Family.PHOTO_READ)

    def test_a_check_that_runs_again_is_no_case_and_worth_another_try(self):
        found = choose("NOT_APPROVED", "zia_vision_validation", Family.UPDATE)
        assert "checking an image of this record again" in found.hint

    @pytest.mark.parametrize("state", [None, *STATES])
    def test_not_reviewed_stays_the_review_process_whatever_the_state_says(self, state):
        found = choose("NOT_REVIEWED", state, Family.UPDATE)
        assert (found.case, found.candidates, found.recheck) == (REVIEW, (REVIEW,), False)
        assert ("rejected this record" in found.hint) is (state == "review_process_rejected")

    @pytest.mark.parametrize("code", ["RECORD_LOCKED", "SUCCESS", "not_approved"])
    def test_other_codes_are_not_diagnosed(self, code):
        found = choose(code, "zia_vision_rejected", Family.UPDATE)
        assert (found.case, found.candidates, found.hint) == (None, (), "")


def probe_of(token=TOKEN, *, url=LEADS, module="Leads", ids=("1",)) -> Probe:
    [probe] = probes(url, module=module, ids=ids, headers={"authorization": token})
    return probe


class TestScopeMemory:
    def test_a_refusal_holds_for_the_token_the_host_and_the_module_and_for_any_record(self):
        memory = ScopeMemory()
        memory.refuse(probe_of())
        assert memory.knows(probe_of(ids=("2",)))
        assert not memory.knows(probe_of("Zoho-oauthtoken other"))
        assert not memory.knows(probe_of(module="Contacts"))
        assert not memory.knows(probe_of(url="https://sandbox.zohoapis.com/crm/v8/Leads"))

    def test_it_forgets_the_one_unused_for_longest(self):
        memory = ScopeMemory(limit=2)
        memory.refuse(probe_of("a"))
        memory.refuse(probe_of("b"))
        memory.knows(probe_of("a"))
        memory.refuse(probe_of("c"))
        assert [memory.knows(probe_of(token)) for token in "abc"] == [True, False, True]

    def test_it_keeps_no_token(self):
        memory = ScopeMemory()
        memory.refuse(probe_of())
        assert "secret" not in repr(vars(memory))

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])  # noqa: S301
    def test_a_copy_starts_empty_with_the_same_limit(self, clone):
        memory = ScopeMemory(limit=1)
        memory.refuse(probe_of())
        copied = clone(memory)
        assert not copied.knows(probe_of())
        copied.refuse(probe_of("a"))
        copied.refuse(probe_of("b"))
        assert not copied.knows(probe_of("a"))

    def test_threads_never_push_it_over_its_limit(self):
        memory = ScopeMemory(limit=8)

        def work(name):
            for n in range(100):
                memory.refuse(probe_of(f"{name}-{n}"))
                memory.knows(probe_of(f"{name}-{n - 4}"))

        threads = [Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(memory._refused) == 8
