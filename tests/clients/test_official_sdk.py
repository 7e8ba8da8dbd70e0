"""Zoho's official Python SDK, which has no session to mount anything on, with one line more."""

import pytest

from crm_guard import ApprovalCase, NotApprovedError, install

ACTIONS = [
    "update",
    "update_many",
    "delete",
    "delete_many",
    "upload_photo",
    "download_photo",
    "delete_photo",
    "add_tags",
    "add_tags_to_many",
    "convert",
]


def entries(answer):
    """Return the results that the SDK made of an answer, whatever it wraps them in."""
    body = answer.get_object()
    return body.get_data() if hasattr(body, "get_data") else [body]


def text(value):
    return value.get_value() if hasattr(value, "get_value") else value


@pytest.fixture
def lead(crm):
    return crm.add_record("Leads", fields={"Company": "a", "Last_Name": "b"}, image=b"an image", locked_for=5.0)


class TestLockedRecords:
    @pytest.mark.parametrize("action", ACTIONS)
    def test_without_the_guard_a_locked_record_is_refused(self, sdk, lead, action):
        answer = getattr(sdk, action)(lead)
        assert answer.get_status_code() == 400
        assert [text(entry.get_code()) for entry in entries(answer)] == ["RECORD_LOCKED"]

    @pytest.mark.parametrize("action", ACTIONS)
    def test_with_the_guard_the_same_call_succeeds_once(self, crm, sdk, lead, installed, clock, action):
        answer = getattr(sdk, action)(lead)
        assert answer.get_status_code() == 200
        assert crm.writes(lead) == (action != "download_photo")
        assert clock.now() >= 5.0
        if action == "download_photo":
            assert b"".join(answer.get_object().get_file().get_stream()) == b"an image"
        else:
            assert [text(entry.get_code()) for entry in entries(answer)] == ["SUCCESS"]

    def test_of_a_batch_only_the_locked_records_are_sent_again(self, crm, sdk, lead, installed):
        free = crm.add_record("Leads")
        answer = sdk.update_many(free, lead)
        assert [str(entry.get_details()["id"]) for entry in entries(answer)] == [free, lead]
        assert crm.write_counts == {free: 1, lead: 1}
        assert crm.calls[-1].record_ids == (lead,)

    def test_json_without_a_content_type_is_understood(self, crm, sdk, lead, installed):
        sdk.update_many(lead)
        writes = [call for call in crm.calls if call.method == "PUT"]
        assert [call.header("Content-Type") for call in writes] == [None] * len(writes)
        assert writes[-1].body == writes[0].body


class TestRefusedRecords:
    @pytest.fixture
    def rejected(self, crm):
        return crm.add_record("Leads", state="zia_vision_rejected")

    def test_the_hint_reaches_the_user_through_the_sdks_own_exception(self, sdk, rejected, installed):
        with pytest.raises(sdk.error, match="Zia rejected an image of this record") as caught:
            sdk.update(rejected)
        refusal = caught.value.cause
        assert isinstance(refusal, NotApprovedError)
        assert refusal.hint in str(caught.value)
        assert refusal.case is ApprovalCase.ZIA_REJECTED
        assert refusal.response.status_code == 400

    def test_with_raise_on_never_the_sdk_parses_the_body_as_always(self, crm, sdk, rejected, clock):
        plain = sdk.update(rejected)
        with install(crm.url, clock=clock, settings={"raise_on": "never"}):
            guarded = sdk.update(rejected)
        for answer in (plain, guarded):
            (entry,) = entries(answer)
            found = (
                answer.get_status_code(),
                type(entry).__name__,
                text(entry.get_code()),
                text(entry.get_message()),
            )
            assert found == (400, "APIException", "NOT_APPROVED", "Cannot update record that is not approved yet")

    def test_with_hints_in_body_the_items_message_ends_with_the_hint(self, crm, sdk, rejected, clock):
        with install(crm.url, clock=clock, settings={"raise_on": "never", "hints_in_body": True}):
            (entry,) = entries(sdk.update(rejected))
        message = text(entry.get_message())
        assert message.startswith("Cannot update record that is not approved yet")
        assert "upload another image" in message
        assert text(entry.get_code()) == "NOT_APPROVED"


def connections(crm, call, times=100):
    before = crm.connections
    for _ in range(times):
        call()
    return crm.connections - before


def test_a_hundred_calls_share_one_connection_instead_of_making_one_each(crm, sdk, clock):
    lead = crm.add_record("Leads")
    sdk.update(lead)  # asks for the fields, once
    assert connections(crm, lambda: sdk.update(lead)) == 100
    with install(crm.url, clock=clock):
        assert connections(crm, lambda: sdk.update(lead)) == 1
    assert crm.writes(lead) == 201


def test_the_sdks_own_questions_pass_through_the_guard_untouched(crm, sdk, lead, installed):
    sdk.update(lead)
    asked = [call.path for call in crm.calls if call.method == "GET"]
    assert asked == ["/crm/v8/users", "/crm/v8/org", "/crm/v8/settings/fields"]
    assert all(call.status == 200 for call in crm.calls if call.method == "GET")
