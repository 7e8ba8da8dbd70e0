"""The documented answers read as documented."""

import base64
import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.endpoints import Resend
from crm_guard._protocol.envelope import read_envelope
from crm_guard._protocol.inspection import MARK
from crm_guard._protocol.matching import resolve
from crm_guard._protocol.request_records import read_request
from crm_guard.remediation import candidates

CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.json"))
ACTIONS = ("zia_vision_processing",)
PREFIX = "https://www.zohoapis.com"


def load(path):
    case = json.loads(path.read_text())
    request, response = case["request"], case["response"]
    query = request.get("raw_url_query") or urlencode(request["query"])
    url = f"{PREFIX}{request['path']}" + (f"?{query}" if query else "")
    address = CrmUrl.of(url)
    body = request["body"]
    sent = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else None
    call = read_request(request["method"], address, lambda: sent, external="X-EXTERNAL" in str(request))
    if "body_base64" in response:
        got = base64.b64decode(response["body_base64"])
    else:
        got = (
            response["body_text"].encode() if "body_text" in response else json.dumps(response.get("body")).encode()
        )
    return case["expect"], case, call, got


def envelope_of(case, call, body):
    """What the adapter would make of the answer: the bodies of successful reads are never looked into."""
    if call.endpoint.reads and case["response"]["status"] < 400:
        return None
    return read_envelope(body, reads=call.reads)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_documented_answer_reads_as_documented(path):
    expect, case, call, body = load(path)
    envelope = envelope_of(case, call, body)
    assert (envelope.kind if envelope else "none") == expect["envelope"]
    items = envelope.items if envelope else ()
    seen = [
        {
            "index": index,
            "record_id": resolve(call, envelope, index)[0],
            "id_source": resolve(call, envelope, index)[1],
            "status": "success" if item.succeeded else "error",
            "code": item.code,
            "action": item.action,
            "retryable": item.retryable(ACTIONS),
        }
        for index, item in enumerate(items)
    ]
    wanted = [{key: outcome[key] for key in seen[0]} for outcome in expect["outcomes"]] if seen else []
    assert seen == wanted
    assert len(items) == len(expect["outcomes"])
    assert [index for index, item in enumerate(items) if item.retryable(ACTIONS)] == expect["retry_subset"]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_guard_acts_on_just_the_documented_refusals(path):
    expect, case, call, body = load(path)
    envelope = envelope_of(case, call, body)
    assert bool(envelope and MARK in body and envelope.guarded) == expect["guard_acts"]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_candidates_of_a_refusal_are_the_documented_ones(path):
    expect, case, call, body = load(path)
    envelope = envelope_of(case, call, body)
    for item, outcome in zip(envelope.items if envelope else (), expect["outcomes"], strict=True):
        if "not_approved_candidates" in outcome:
            found = candidates(item.code, call.endpoint.family)
            assert [case.value for case in found] == outcome["not_approved_candidates"]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_only_an_endpoint_that_may_be_repeated_is_repeated(path):
    expect, _, call, _ = load(path)
    if expect["resend_whole_request_ok"] or (expect["retry_subset"] and expect["envelope"] != "composite"):
        assert call.endpoint.resend is not Resend.NEVER
    elif expect["envelope"] == "composite":
        assert call.endpoint.resend is Resend.NEVER
