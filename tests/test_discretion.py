"""P7: no token, body, query, header or field value in logs, events, texts or reprs."""

import io
import json
import logging
import traceback

import pytest
import requests

from crm_guard import GuardError, get_report

ORIGIN = "https://www.zohoapis.com"
EMAIL = "jane.doe@example.com"
PHONE = "4915112345678"
TOKEN = "1000.deadbeef.c0ffee"
COMPANY = "Zylker Secret Ltd"
HEADERS = {"Authorization": f"Zoho-oauthtoken {TOKEN}", "X-EXTERNAL": "Leads.Email", "X-Note": "hdr-value"}
SECRETS = [
    EMAIL,
    "jane",
    "%40example",
    PHONE,
    TOKEN,
    "deadbeef",
    COMPANY,
    "Zylker",
    "hdr-value",
    "qry-value",
    "crm-text",
]


def refusal(code="RECORD_LOCKED", **details):
    details = {"action": "zia_vision_processing"} | details
    return {"code": code, "details": details, "message": f"crm-text {EMAIL}", "status": "error"}


ROW = {"data": [{"Company": COMPANY, "Email": EMAIL, "Phone": PHONE}]}
CALLS = {
    "one record by its address": ("PUT", f"/crm/v8/Leads/{EMAIL}", ROW, HEADERS),
    "one record by its encoded address": ("PUT", "/crm/v8/Leads/jane.doe%40example.com", ROW, HEADERS),
    "one record by its telephone": ("PUT", f"/crm/v8/Leads/{PHONE}", ROW, HEADERS | {"X-EXTERNAL": "Leads.Phone"}),
    "a photo by its telephone": ("POST", f"/crm/v8/Leads/{PHONE}/photo", ROW, HEADERS),
    "an action by address": (
        "POST",
        f"/crm/v8/Leads/{EMAIL}/actions/add_tags",
        {"tags": [{"name": COMPANY}]},
        HEADERS,
    ),
    "a related record by address": ("PUT", f"/crm/v8/Leads/{EMAIL}/Products/{PHONE}", ROW, HEADERS),
    "a batch": ("PUT", "/crm/v8/Leads", ROW, HEADERS),
    "a batch by addresses": ("DELETE", f"/crm/v8/Leads?ids={EMAIL}", None, HEADERS),
    "a batch by telephones": ("DELETE", f"/crm/v8/Leads?ids={PHONE}", None, HEADERS),
    "a batch with addresses for ids": (
        "POST",
        "/crm/v8/Leads/actions/add_tags",
        {"ids": [EMAIL]},
        {"Authorization": TOKEN},
    ),
    "a composite call": ("POST", "/crm/v8/__composite_requests", {"__composite_requests": [ROW]}, HEADERS),
}


class Spy(io.StringIO):
    """A log handler's stream: everything that any logger writes, with all that hangs on the records."""

    def take(self, record):
        self.write(f"{record.getMessage()} {record.__dict__!r}\n")


@pytest.fixture
def everything():
    """Everything that is written to any log, at every level."""
    seen = Spy()
    handler = logging.Handler(logging.DEBUG)
    handler.emit = seen.take
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield seen
    root.removeHandler(handler)
    root.setLevel(before)


def told(error):
    """All texts of an exception; the values in frames and attributes are the caller's own."""
    report = get_report(error)
    texts = [str(error), repr(error), error.hint, *getattr(error, "__notes__", ())]
    texts += ["".join(traceback.format_exception_only(error)), repr(report), repr(report.outcomes)]
    texts += [repr(error.remaining_request()), *(outcome.hint for outcome in report.outcomes)]
    return "\n".join(texts)


def assert_discreet(*texts):
    for text in texts:
        assert [secret for secret in SECRETS if secret.lower() in text.lower()] == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "codes",
    [["RECORD_LOCKED"], ["RECORD_LOCKED", "NOT_APPROVED"], ["NOT_APPROVED"], ["NOT_REVIEWED"]],
    ids=" then ".join,
)
@pytest.mark.parametrize("policy", [{}, {"timeout": 0}, {"diagnose": False}], ids=repr)
def test_p7_nothing_of_a_call_is_told(canned, events, everything, call, codes, policy):
    method, path, body, headers = CALLS[call]
    session = canned(*((400, {"data": [refusal(code)]}) for code in codes), **({"attempts": 3} | policy))
    query = "&x=qry-value" if "?" in path else "?x=qry-value"
    try:
        response = session.request(method, ORIGIN + path + query, json=body, headers=headers)
    except GuardError as exc:
        error = exc
    else:
        with pytest.raises(GuardError) as caught:
            get_report(response).raise_for_blocked()
        error = caught.value
    assert events
    assert_discreet(everything.getvalue(), repr(events), told(error))
    if "X-EXTERNAL" in headers:
        assert PHONE not in "".join(
            request.url for request in session.inner.sent[len(codes) :] if request.method == "GET"
        )


@pytest.mark.parametrize(
    "details", [{"action": EMAIL}, {"action": COMPANY, "id": EMAIL}, {"id": [EMAIL]}], ids=repr
)
def test_p7_what_crm_says_is_not_repeated_unless_it_is_a_plain_word(canned, events, everything, details):
    session = canned((400, {"data": [refusal(**details)]}), timeout=0)
    with pytest.raises(GuardError) as caught:
        session.put(f"{ORIGIN}/crm/v8/Leads/1", json=ROW, headers=HEADERS)
    assert_discreet(everything.getvalue(), repr(events), told(caught.value))


def test_p7_a_hook_that_fails_over_a_value_does_not_tell_it(canned, everything):
    def fail(event):
        raise ValueError(EMAIL, TOKEN)

    session = canned((400, {"data": [refusal()]}), timeout=0, hooks=[fail])
    with pytest.raises(GuardError):
        session.put(f"{ORIGIN}/crm/v8/Leads/1", json=ROW)
    assert_discreet(everything.getvalue())


def test_p7_a_call_that_breaks_off_does_not_tell_more(canned, events, everything):
    rows = [{"id": "1", "Company": COMPANY}, {"id": "2", "Email": EMAIL}]
    done = {"code": "SUCCESS", "details": {"id": "1"}, "message": EMAIL, "status": "success"}
    session = canned((207, {"data": [done, refusal(id="2")]}))
    send = session.inner.send

    def break_off(request, **options):
        if session.inner.given:
            raise requests.ConnectionError("reset")  # noqa: EM101
        return send(request, **options)

    session.inner.send = break_off
    with pytest.raises(GuardError) as caught:
        session.put(f"{ORIGIN}/crm/v8/Leads?x=qry-value", json={"data": rows}, headers={"Authorization": TOKEN})
    assert isinstance(caught.value.__cause__, requests.ConnectionError)
    notes = "".join(caught.value.__cause__.__notes__)
    assert_discreet(everything.getvalue(), repr(events), told(caught.value), notes)


def test_p7_a_remaining_request_keeps_no_credentials(canned):
    session = canned((400, {"data": [refusal()]}), timeout=0)
    with pytest.raises(GuardError) as caught:
        session.put(
            "https://jane:pa55@www.zohoapis.com/crm/v8/Leads/1", json={"a": 1}, headers={"Authorization": TOKEN}
        )
    kept = json.dumps(caught.value.remaining_request().to_dict())
    assert TOKEN not in kept
    assert "pa55" not in kept


def test_the_record_in_the_path_is_told_where_it_is_an_id(canned, events):
    session = canned((400, {"data": [refusal()]}), timeout=0)
    with pytest.raises(GuardError, match="record 111112000000075003"):
        session.put(f"{ORIGIN}/crm/v8/Leads/111112000000075003", json=ROW)
    assert {event.path for event in events} == {"/crm/v8/Leads/111112000000075003"}
    assert {event.record_ids for event in events} == {("111112000000075003",)}
