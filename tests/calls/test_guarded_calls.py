"""What a user of the adapter sees, over real loopback HTTP. Numbers P1 to P7 are the promises of the README."""

import copy
import io
import pickle
import re
import threading

import pytest
import requests
import responses

from crm_guard import (
    GiveUpReason,
    GuardAdapter,
    GuardSettings,
    NotApprovedError,
    RecordLockedError,
    get_report,
)

ZIA = "zia_vision_validation"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
ROW = {"data": [{"Company": "Zylker"}]}
LOCKED = {"code": "RECORD_LOCKED", "details": {"id": "1", "action": "zia_vision_processing"}, "status": "error"}


def without_ids_and_times(text):
    return re.sub(r"\d{13,}|\d{4}-\d\d-\d\dT[0-9:+-]+", "...", text)


CALLS = {
    "update": lambda s, leads, a: s.put(f"{leads}/{a}", json=ROW),
    "update as a batch": lambda s, leads, a: s.put(leads, json={"data": [{"id": a, "Company": "Zylker"}]}),
    "upsert": lambda s, leads, a: s.post(f"{leads}/upsert", json={"data": [{"id": a, "Company": "Zylker"}]}),
    "delete": lambda s, leads, a: s.delete(f"{leads}/{a}"),
    "delete by ids": lambda s, leads, a: s.delete(leads, params={"ids": a}),
    "add tags": lambda s, leads, a: s.post(f"{leads}/{a}/actions/add_tags", json={"tags": [{"name": "hot"}]}),
    "add tags by ids": lambda s, leads, a: s.post(
        f"{leads}/actions/add_tags", json={"tags": [{"name": "hot"}], "ids": [a]}
    ),
    "remove tags": lambda s, leads, a: s.post(f"{leads}/{a}/actions/remove_tags", json={"tags": [{"name": "hot"}]}),
    "remove tags by ids": lambda s, leads, a: s.post(
        f"{leads}/actions/remove_tags", json={"tags": [{"name": "hot"}], "ids": [a]}
    ),
    "share": lambda s, leads, a: s.post(
        f"{leads}/{a}/actions/share",
        json={
            "share": [{"shared_with": {"id": "111111000000000874", "type": "roles"}, "permission": "full_access"}]
        },
    ),
    "mass update": lambda s, leads, a: s.post(f"{leads}/actions/mass_update", json={"ids": [a], **ROW}),
    "mass delete": lambda s, leads, a: s.post(f"{leads}/actions/mass_delete", json={"ids": [a]}),
    "change owner": lambda s, leads, a: s.post(
        f"{leads}/actions/change_owner", json={"ids": [a], "owner": {"id": "5725767000000291001"}}
    ),
    "convert": lambda s, leads, a: s.post(f"{leads}/{a}/actions/convert", json={"data": [{"overwrite": True}]}),
    "upload image": lambda s, leads, a: s.post(f"{leads}/{a}/photo", files={"file": ("a.png", PNG, "image/png")}),
    "delete image": lambda s, leads, a: s.delete(f"{leads}/{a}/photo"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_p2_a_locked_record_is_waited_for_and_written_once(crm, guard, leads, call):
    lead = crm.add_record("Leads", locked_for=5.0, image=PNG)
    response = call(guard(), leads, lead)
    assert response.ok
    assert crm.writes(lead) == 1
    assert get_report(response).attempts == len(crm.calls) > 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_p3_the_answer_after_a_lock_equals_that_of_a_record_never_locked(crm, guard, leads, call):
    locked, free = (crm.add_record("Leads", image=PNG, **kind) for kind in ({"locked_for": 5.0}, {}))
    session = guard()
    after, at_once = call(session, leads, locked), call(session, leads, free)
    assert (after.status_code, after.reason) == (at_once.status_code, at_once.reason)
    assert without_ids_and_times(after.text) == without_ids_and_times(at_once.text)
    assert set(after.headers) == set(at_once.headers)
    assert int(after.headers["Content-Length"]) == len(after.content)
    assert after.request.url.startswith(leads)


def test_a_record_locked_for_two_seconds_is_written_after_these(crm, guard, leads, clock):
    lead = crm.add_record("Leads", locked_for=2.0)
    response = guard().put(f"{leads}/{lead}", json=ROW)
    assert response.status_code == 200
    assert crm.writes(lead) == 1
    assert clock.now() >= 2.0
    assert get_report(response).waited == pytest.approx(clock.now())


def test_an_image_comes_after_the_lock_byte_for_byte(crm, guard, leads):
    lead = crm.add_record("Leads", locked_for=3.0, image=PNG)
    response = guard().get(f"{leads}/{lead}/photo")
    assert response.content == PNG
    assert get_report(response).outcomes[0].succeeded


def test_p1_an_image_that_follows_a_lock_stays_a_stream(crm, guard, leads):
    lead = crm.add_record("Leads", locked_for=3.0, image=PNG)
    with guard().get(f"{leads}/{lead}/photo", stream=True) as response:
        assert not response._content_consumed
        assert b"".join(response.iter_content(7)) == PNG


def test_a_refusal_that_was_asked_for_as_a_stream_is_waited_out_too(crm, guard, leads):
    lead = crm.add_record("Leads", locked_for=3.0)
    assert guard().put(f"{leads}/{lead}", json=ROW, stream=True).json()["data"][0]["code"] == "SUCCESS"


def test_a_refused_call_leaves_its_connection_to_the_next(crm, guard, leads):
    lead = crm.add_record("Leads", refusals=8)
    guard(wait_initial=1.0, wait_max=1.0).put(f"{leads}/{lead}", json=ROW)
    assert len(crm.calls) == 9
    assert crm.connections == 1


class TestWaits:
    def test_the_first_wait_is_a_real_one_and_no_wait_is_above_the_ceiling(self, crm, guard, leads, clock):
        lead = crm.add_record("Leads", refusals=12)
        guard().put(f"{leads}/{lead}", json=ROW)
        assert 2.4 <= clock.waits[0] <= 3.0
        assert all(later >= 2.4 for later in clock.waits)
        assert max(clock.waits) <= 5.0

    def test_p4_no_wait_begins_that_would_end_after_the_deadline(self, crm, guard, leads, clock):
        lead = crm.add_record("Leads", state=ZIA)
        with pytest.raises(RecordLockedError) as caught:
            guard(timeout=10.0).put(f"{leads}/{lead}", json=ROW)
        assert caught.value.reason is GiveUpReason.TIMEOUT
        assert clock.now() < 10.0 < clock.now() + caught.value.retry_after  # nor one that is cut short
        assert caught.value.retry_after > 0
        assert crm.writes(lead) == 0

    def test_a_timeout_of_zero_fails_at_once_and_says_when_to_try_again(self, crm, guard, leads, clock):
        lead = crm.add_record("Leads", locked_for=2.0)
        with pytest.raises(RecordLockedError) as caught:
            guard(timeout=0).put(f"{leads}/{lead}", json=ROW)
        assert len(crm.calls) == 1
        assert clock.waits == []
        assert caught.value.retry_after >= 0.8
        assert caught.value.retryable

    def test_attempts_count_every_send(self, crm, guard, leads):
        lead = crm.add_record("Leads", state=ZIA)
        with pytest.raises(RecordLockedError) as caught:
            guard(attempts=3).put(f"{leads}/{lead}", json=ROW)
        assert len(crm.calls) == caught.value.report.attempts == 3
        assert caught.value.reason is GiveUpReason.ATTEMPTS

    def test_one_attempt_never_sends_again(self, crm, guard, leads):
        lead = crm.add_record("Leads", state=ZIA)
        with pytest.raises(RecordLockedError):
            guard(attempts=1).put(f"{leads}/{lead}", json=ROW)
        assert len(crm.calls) == 1

    def test_an_empty_list_of_actions_waits_for_nothing(self, crm, guard, leads):
        lead = crm.add_record("Leads", state=ZIA)
        with pytest.raises(RecordLockedError) as caught:
            guard(retry_actions=()).put(f"{leads}/{lead}", json=ROW)
        assert len(crm.calls) == 1
        assert not caught.value.retryable

    def test_p4_stopping_ends_a_wait_at_once(self, crm, leads):
        waiting = threading.Event()
        adapter = GuardAdapter(
            GuardSettings(wait_initial=60.0, wait_max=60.0),
            hooks=[lambda event: waiting.set() if event.kind == "waiting" else None],
        )
        session = requests.Session()
        session.mount(crm.url + "/", adapter)
        lead = crm.add_record("Leads", state=ZIA)
        found = []

        def call():
            with pytest.raises(RecordLockedError) as caught:
                session.put(f"{leads}/{lead}", json=ROW)
            found.append(caught.value.reason)

        thread = threading.Thread(target=call)
        thread.start()
        assert waiting.wait(10)
        adapter.stop_waiting()
        thread.join(10)
        assert found == [GiveUpReason.STOPPED]

    def test_a_closed_adapter_can_be_used_again(self, crm, guard, leads):
        session = guard()
        session.guard.close()
        lead = crm.add_record("Leads", locked_for=2.0)
        assert session.put(f"{leads}/{lead}", json=ROW).ok
        session.guard.close()

    def test_retry_after_is_honoured_where_it_is_longer(self, clock):
        with responses.RequestsMock() as mock:
            url = "https://www.zohoapis.com/crm/v8/Leads/1"
            mock.put(url, status=400, json=LOCKED, headers={"Retry-After": "7"})
            mock.put(url, json={"data": [{"code": "SUCCESS", "details": {"id": "1"}, "status": "success"}]})
            session = requests.Session()
            session.mount("https://", GuardAdapter(GuardSettings(), clock=clock))
            assert session.put(url, json=ROW).ok
        assert clock.waits == [7.0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("state", "hint"),
        [("record_locking", "Locking_Information__s"), ("merge_pending", "look the record up again")],
    )
    def test_a_lock_that_waiting_does_not_end_is_raised_after_one_call(self, crm, guard, leads, state, hint):
        lead = crm.add_record("Leads", state=state)
        with pytest.raises(RecordLockedError) as caught:
            guard().put(f"{leads}/{lead}", json=ROW)
        assert len(crm.calls) == 1
        assert not caught.value.retryable
        assert caught.value.retry_after is None
        assert hint in caught.value.hint

    def test_an_action_in_the_settings_is_waited_for(self, crm, guard, leads, clock):
        lead = crm.add_record("Leads", state="record_locking")
        clock.during_wait = lambda: crm.set_state(lead, "approved")
        session = guard(retry_actions=("zia_vision_processing", "record_locking"))
        assert session.put(f"{leads}/{lead}", json=ROW).ok
        assert crm.writes(lead) == 1

    @pytest.mark.parametrize("then", ["zia_vision_rejected", "zia_vision_pending", "approval_process_pending"])
    def test_a_lock_that_ends_in_a_refusal_is_a_refusal(self, crm, guard, leads, then):
        lead = crm.add_record("Leads", locked_for=4.0, then=then)
        with pytest.raises(NotApprovedError) as caught:
            guard(diagnose=False).put(f"{leads}/{lead}", json=ROW)
        assert caught.value.report.attempts == len(crm.calls) == 3
        assert caught.value.report.waited > 4.0
        assert caught.value.retry_after is None

    def test_a_lock_that_becomes_one_of_another_kind_is_final(self, crm, guard, leads):
        lead = crm.add_record("Leads", locked_for=1.5, then="record_locking")
        with pytest.raises(RecordLockedError) as caught:
            guard().put(f"{leads}/{lead}", json=ROW)
        assert caught.value.outcomes[0].action == "record_locking"
        assert caught.value.reason is None

    def test_the_error_carries_a_usable_response(self, crm, guard, leads):
        lead = crm.add_record("Leads", state="zia_vision_rejected")
        with pytest.raises(requests.HTTPError) as caught:
            guard().put(f"{leads}/{lead}", json=ROW, stream=True)
        assert caught.value.response.status_code == 400
        assert caught.value.response.json()["code"] == "NOT_APPROVED"
        assert caught.value.request.url.endswith(lead)
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
        assert again.response.json() == caught.value.response.json()
        assert (again.hint, again.case, str(again)) == (caught.value.hint, caught.value.case, str(caught.value))


class TestRaising:
    def batch(self, crm, *states):
        return [crm.add_record("Leads", state=state) for state in states]

    def put(self, session, leads, ids):
        return session.put(leads, json={"data": [{"id": lead, "Company": "Zylker"} for lead in ids]})

    def test_a_partly_applied_call_is_returned_with_its_report(self, crm, guard, leads):
        ids = self.batch(crm, "approved", "record_locking", "zia_vision_rejected")
        response = self.put(guard(), leads, ids)
        report = get_report(response)
        assert response.status_code == 207
        assert [outcome.record_id for outcome in report.blocked] == ids[1:]
        with pytest.raises(NotApprovedError) as caught:
            report.raise_for_blocked()
        assert caught.value.record_ids == (ids[2],)
        assert caught.value.outcomes == report.outcomes

    def test_partial_raises_where_any_record_stays_blocked(self, crm, guard, leads):
        ids = self.batch(crm, "approved", "record_locking")
        with pytest.raises(RecordLockedError) as caught:
            self.put(guard(raise_on="partial"), leads, ids)
        assert crm.writes(ids[0]) == 1
        assert caught.value.record_ids == (ids[1],)

    def test_never_returns_every_response(self, crm, guard, leads):
        (lead,) = self.batch(crm, "zia_vision_rejected")
        response = guard(raise_on="never").put(f"{leads}/{lead}", json=ROW)
        assert response.status_code == 400
        assert get_report(response).blocked[0].hint

    def test_a_missing_approval_outweighs_a_lock(self, crm, guard, leads):
        ids = self.batch(crm, ZIA, "zia_vision_rejected")
        with pytest.raises(NotApprovedError) as caught:
            self.put(guard(timeout=5.0), leads, ids)
        assert [outcome.code for outcome in caught.value.outcomes] == ["RECORD_LOCKED", "NOT_APPROVED"]
        assert caught.value.reason is GiveUpReason.TIMEOUT


class TestHintsInBody:
    def test_the_hint_stands_behind_the_message_and_nothing_else_changes(self, crm, guard, leads):
        lead = crm.add_record("Leads", state="zia_vision_rejected")
        plain = guard(raise_on="never").put(f"{leads}/{lead}", json=ROW)
        told = guard(raise_on="never", hints_in_body=True).put(f"{leads}/{lead}", json=ROW)
        before, after = plain.json(), told.json()
        hint = get_report(told).blocked[0].hint
        assert after.pop("message") == f"{before.pop('message')} {hint}"
        assert after == before
        assert int(told.headers["Content-Length"]) == len(told.content)

    def test_in_a_batch_only_blocked_items_are_told(self, crm, guard, leads):
        ids = [crm.add_record("Leads", state=state) for state in ("approved", "record_locking")]
        response = guard(hints_in_body=True).put(leads, json={"data": [{"id": lead} for lead in ids]})
        applied, blocked = response.json()["data"]
        assert applied["message"] == "record updated"
        assert blocked["message"].endswith(get_report(response).blocked[0].hint)
        assert response.status_code == 207

    @pytest.mark.parametrize("fault", ["401", "429", "500"])
    @pytest.mark.parametrize("count", [1, 3])
    def test_an_answer_that_is_not_about_records_keeps_its_own_words(self, crm, guard, leads, fault, count):
        ids = [crm.add_record("Leads", locked_for=9.0) for _ in range(count)]
        crm.fault(fault, after=1)
        response = guard(hints_in_body=True).put(leads, json={"data": [{"id": lead} for lead in ids]})
        assert response.status_code == int(fault)
        assert response.json()["code"] in {"INVALID_TOKEN", "TOO_MANY_REQUESTS", "INTERNAL_ERROR"}
        assert get_report(response).reason is GiveUpReason.FOLLOW_UP


class TestBodies:
    def test_a_file_is_rewound_to_where_it_stood(self, crm, guard, leads):
        lead = crm.add_record("Leads", locked_for=3.0)
        body = io.BytesIO(b'garbage{"data":[{"Company":"Zylker"}]}')
        body.seek(7)
        assert guard().put(f"{leads}/{lead}", data=body).ok
        assert [call.body for call in crm.calls[1:]] == [b'{"data":[{"Company":"Zylker"}]}'] * (len(crm.calls) - 1)

    def test_a_batch_in_a_file_is_narrowed(self, crm, guard, leads):
        free, locked = crm.add_record("Leads"), crm.add_record("Leads", locked_for=3.0)
        body = io.BytesIO(b'{"data":[{"id":"%s"},{"id":"%s"}]}' % (free.encode(), locked.encode()))
        assert guard().put(leads, data=body).status_code == 200
        assert crm.calls[-1].record_ids == (locked,)

    def test_a_generator_is_sent_once_and_reported(self, crm, guard, leads):
        lead = crm.add_record("Leads", locked_for=3.0)
        with pytest.raises(RecordLockedError) as caught:
            guard().put(f"{leads}/{lead}", data=iter([b'{"data":', b'[{"Company":"Zylker"}]}']))
        assert caught.value.reason is GiveUpReason.NOT_REPLAYABLE
        assert caught.value.outcomes[0].action == "zia_vision_processing"
        assert len(crm.calls) == 1

    def test_p6_the_callers_request_is_never_changed(self, crm, guard, leads):
        free, locked = crm.add_record("Leads"), crm.add_record("Leads", refusals=2)
        session = guard(refresh=lambda request: request.headers.update({"Authorization": "Zoho-oauthtoken new"}))
        request = requests.Request("PUT", leads, json={"data": [{"id": free}, {"id": locked}]})
        prepared = session.prepare_request(request)
        before = (prepared.url, prepared.body, dict(prepared.headers), dict(prepared.hooks))
        assert session.send(prepared).ok
        assert (prepared.url, prepared.body, dict(prepared.headers), dict(prepared.hooks)) == before
        assert crm.calls[-1].headers["Authorization"] == "Zoho-oauthtoken new"


class TestTransparency:
    """P1."""

    def test_other_paths_pass_whatever_they_answer(self, crm, guard):
        response = guard().put(f"{crm.url}/books/v3/contacts/1", json=ROW)
        assert not hasattr(response, "_crm_guard_report")

    def test_a_call_without_a_refusal_returns_the_very_response(self, crm, clock):
        made = []

        class Spy(requests.adapters.HTTPAdapter):
            def send(self, *args, **kwargs):
                made.append(super().send(*args, **kwargs))
                return made[-1]

        session = requests.Session()
        session.mount(crm.url + "/", GuardAdapter(GuardSettings(), clock=clock, inner=Spy()))
        lead = crm.add_record("Leads")
        for method, url in [("PUT", f"/Leads/{lead}"), ("GET", f"/Leads/{lead}"), ("DELETE", "/Leads/1")]:
            assert session.request(method, f"{crm.url}/crm/v8{url}", json=ROW) is made[-1]
        session.close()

    def test_a_body_above_the_limit_is_not_looked_into(self, crm, guard, leads):
        lead = crm.add_record("Leads", state="record_locking")
        response = guard(max_inspect_bytes=10).put(f"{leads}/{lead}", json=ROW)
        assert response.json()["data"][0]["code"] == "RECORD_LOCKED"


class TestCopies:
    def test_a_session_with_a_guard_can_be_pickled_and_copied(self, crm, guard, leads):
        session = guard(attempts=7)
        for twin in (pickle.loads(pickle.dumps(requests_only(session))), copy.deepcopy(requests_only(session))):  # noqa: S301
            adapter = twin.get_adapter(leads)
            assert adapter.settings.attempts == 7
            lead = crm.add_record("Leads", refusals=1)
            assert twin.put(f"{leads}/{lead}", json=ROW).ok
            twin.close()


def requests_only(session):
    """A session whose guard holds nothing of the test's own."""
    plain = requests.Session()
    settings = GuardSettings(attempts=session.guard.settings.attempts, wait_initial=0.001, wait_max=0.002)
    for prefix in session.adapters:
        if prefix.startswith("http://127"):
            plain.mount(prefix, GuardAdapter(settings))
    return plain


class TestCredits:
    def test_waiting_stops_when_the_credits_run_out(self, clock):
        with responses.RequestsMock() as mock:
            url = "https://www.zohoapis.com/crm/v8/Leads/1"
            mock.put(url, status=400, json=LOCKED, headers={"X-API-CREDITS-REMAINING": "50"})
            session = requests.Session()
            session.mount("https://", GuardAdapter(GuardSettings(min_credits=50), clock=clock))
            with pytest.raises(RecordLockedError) as caught:
                session.put(url, json=ROW)
        assert caught.value.reason is GiveUpReason.CREDITS
        assert clock.waits == []
