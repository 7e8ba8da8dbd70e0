"""Whatever comes back, the caller gets it: the very response, with every byte."""

import gzip
import json
import math
from contextlib import suppress

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard import GuardError, get_report
from crm_guard._protocol.inspection import MARK

URL = "https://www.zohoapis.com/crm/v8/Leads"
LOCK = {
    "code": "RECORD_LOCKED",
    "details": {"id": "1", "action": "zia_vision_processing"},
    "message": "Cannot update record that is not approved yet",
    "status": "error",
}
TEXT = json.dumps({"data": [LOCK]})
COMPOSITE = b'{"__composite_requests":[{"code":"","status":"error","details":{"response":{"body":'

HOSTILE = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "truncated": TEXT.encode()[:-3],
    "truncated in the code": TEXT.encode()[: TEXT.index("LOCKED") + 3],
    "two documents": TEXT.encode() * 2,
    "a list a hundred thousand deep": b'{"data":' + b"[" * 100_000 + b']RECORD_LOCKED"',
    "closed brackets a hundred thousand deep": b'{"data":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b',"x":"RECORD_LOCKED"}',
    "objects a hundred thousand deep": b'{"data":' * 100_000 + b'"RECORD_LOCKED"' + b"}" * 100_000,
    "composites in composites": COMPOSITE * 10_000 + b'"RECORD_LOCKED"' + b"}}}]}" * 10_000,
    "composites as deep as can be read": COMPOSITE * 150 + TEXT.encode() + b"}}}]}" * 150,
    "NaN": TEXT.replace('"1"', "NaN").encode(),
    "Infinity": TEXT.replace('"1"', "-Infinity").encode(),
    "a number out of range": TEXT.replace('"1"', "1e999").encode(),
    "a number of 5000 digits": TEXT.replace('"1"', "9" * 5000).encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-8 with a byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "invalid UTF-8 in the item": TEXT.encode().replace(b"Cannot", b"C\xe4nnot"),
    "a lone surrogate": TEXT.replace("Cannot", "\\ud800").encode(),
    "an unknown escape": TEXT.replace("Cannot", "\\x").encode(),
    "a control character": TEXT.replace("Cannot", "\x00").encode(),
    "a comment": TEXT.replace("[", "[/*x*/").encode(),
    "single quotes": TEXT.replace('"', "'").encode() + b'"RECORD_LOCKED"',
    "HTML": b'<html><body class="RECORD_LOCKED">502</body></html>',
    "XML": b'<response><error code="RECORD_LOCKED"/></response>',
    "gzip without a header that says so": gzip.compress(TEXT.encode()),
}


@pytest.mark.parametrize("stream", [False, True], ids=["read", "streamed"])
@pytest.mark.parametrize("status", [200, 400, 502])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_p1_a_body_that_cannot_be_read_passes_as_it_is(canned, body, status, stream):
    session = canned((status, body))
    response = session.put(URL, json={"data": [{"id": "1"}]}, stream=stream)
    assert response is session.inner.given[0]
    assert len(session.inner.sent) == 1
    told = [(found.record_id, found.succeeded, found.uncertain) for found in get_report(response).outcomes]
    at_its_end = (body, status, stream) == (b"", 200, True)  # as a stream is that somebody else has read
    assert told == ([] if at_its_end else [("1", False, status != 400)])
    assert (response.raw.read() if stream and response.raw.tell() == 0 else response.content) == body


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_request_body_does_not_cost_the_answer(canned, body):
    for method, path in (
        ("PUT", ""),
        ("POST", "/actions/add_tags?ids=1"),
        ("POST", "/upsert"),
        ("DELETE", "?ids=1"),
    ):
        session = canned((400, TEXT.encode()), raise_on="never", timeout=0)
        response = session.request(method, URL + path, data=body)
        assert response.content == TEXT.encode()
        assert [found.code for found in get_report(response).outcomes] == ["RECORD_LOCKED"]
        assert get_report(session.inner.given[0]).outcomes[0].retryable


@pytest.mark.parametrize("size", [0, 1, 4096])
def test_p1_a_body_above_eight_mebibytes_is_passed_on(canned, size):
    filler = b" " * (8 * 1024 * 1024 - len(TEXT) + size)
    session = canned((400, TEXT.encode() + filler), timeout=0)
    if size == 0:
        with pytest.raises(GuardError):
            session.put(URL + "/1")
        return
    response = session.put(URL, stream=True)
    assert response.raw.read() == TEXT.encode() + filler


@pytest.mark.parametrize(
    "kind",
    [
        "text/html",
        "text/plain;charset=UTF-8",
        "image/png",
        "application/octet-stream",
        "application/xml",
        "nonsense",
    ],
)
def test_p1_what_is_no_json_by_its_content_type_is_not_read(canned, kind):
    session = canned((400, TEXT.encode(), {"Content-Type": kind}))
    response = session.put(URL, stream=True)
    assert response is session.inner.given[0]
    assert response.raw.tell() == 0
    assert response.content == TEXT.encode()


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON;charset=utf-8", "application/problem+json", "", "text/json"]
)
def test_what_may_be_json_by_its_content_type_is_read(canned, kind):
    session = canned((400, TEXT.encode(), {"Content-Type": kind}), timeout=0)
    with pytest.raises(GuardError):
        session.put(URL + "/1")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_p1_the_body_of_a_successful_read_is_not_touched(canned, method):
    session = canned((200, TEXT.encode()))
    response = session.request(method, URL + "/1", stream=True)
    assert response.raw.tell() == 0
    assert not get_report(response).outcomes
    assert response.raw.tell() == 0


def test_p1_the_rows_of_a_query_are_no_refusals(canned):
    session = canned((200, TEXT.encode()))
    response = session.post("https://www.zohoapis.com/crm/v8/coql", json={"select_query": "select code from Leads"})
    assert response is session.inner.given[0]
    assert not get_report(response).outcomes


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "9" * 5000},
        {"Content-Length": "-1"},
        {"Content-Length": f"{len(TEXT)}, {len(TEXT)}"},
        {"Content-Length": "\u00b2"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "unheard-of"},
        {"Retry-After": "9" * 4000},
        {"Retry-After": "nonsense"},
        {"Retry-After": "Wed, 21 Oct 99999 07:28:00 GMT"},
        {"X-API-CREDITS-REMAINING": "9" * 5000},
        {"X-API-CREDITS-REMAINING": "\u0663"},
        {"X-API-CREDITS-REMAINING": ""},
    ],
    ids=repr,
)
@pytest.mark.parametrize("stream", [False, True], ids=["read", "streamed"])
def test_absurd_headers_do_not_cost_the_answer(canned, headers, stream):
    session = canned((400, TEXT.encode(), headers), raise_on="never", timeout=1)
    if headers.get("Content-Encoding") == "gzip" and not stream:
        with pytest.raises(requests.exceptions.ContentDecodingError):  # as without a guard
            session.put(URL + "/1")
        return
    response = session.put(URL + "/1", stream=stream)
    assert response.status_code == 400
    assert response.headers.items() >= headers.items()


FIXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
TARGETS = st.sampled_from(
    [
        ("PUT", ""),
        ("PUT", "/1"),
        ("POST", "/upsert"),
        ("DELETE", "?ids=1,2"),
        ("POST", "/actions/add_tags"),
        ("POST", "/1/actions/share"),
        ("GET", "/1/photo"),
        ("POST", "/../__composite_requests"),
    ]
)


@FIXED
@given(data=st.data(), target=TARGETS, status=st.sampled_from([200, 202, 207, 400, 403, 500]), stream=st.booleans())
def test_p1_no_answer_at_all_makes_the_guard_raise_anything_of_its_own(
    canned, documents, data, target, status, stream
):
    body = data.draw(st.binary(max_size=60) | documents.map(lambda value: json.dumps(value).encode()))
    asked = data.draw(st.binary(max_size=30) | documents.map(lambda value: json.dumps(value).encode()))
    session = canned((status, body), raise_on="never", attempts=1, diagnose=False)
    response = session.request(target[0], URL + target[1], data=asked, stream=stream)
    assert response is session.inner.given[0]
    assert response.content == body
    report = get_report(response)
    assert repr(report)
    if report.blocked:
        assert MARK in body
        with pytest.raises(GuardError) as caught:
            report.raise_for_blocked()
        assert "\n" not in str(caught.value)


@FIXED
@given(
    data=st.data(),
    target=TARGETS,
    statuses=st.lists(st.sampled_from([200, 207, 400, 401, 500]), min_size=3, max_size=3),
)
def test_no_sequence_of_answers_makes_the_guard_raise_anything_of_its_own(
    canned, documents, data, target, statuses
):
    rows = [{"id": "1"}, {"id": "2"}]
    refused = {"data": [LOCK, LOCK | {"details": LOCK["details"] | {"id": "2"}}]}
    answers = [(400, refused), *((status, json.dumps(data.draw(documents)).encode()) for status in statuses)]
    session = canned(*answers, raise_on="never", attempts=4, diagnose=False)
    response = session.request(target[0], URL + target[1], json={"data": rows, "ids": ["1", "2"]})
    assert response.status_code in {400, *statuses, 202}
    report = get_report(response)
    assert 1 <= report.attempts <= 4
    assert math.isfinite(report.waited)
    for outcome in report.outcomes:
        assert not (outcome.succeeded and outcome.uncertain)
    with suppress(GuardError):
        report.raise_for_blocked()
