"""Whatever is sent to the control API is answered with JSON and a fitting status, and CRM goes on."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard.simulator import Engine, FaultKind, Request, State
from crm_guard.simulator.control import Control
from crm_guard.simulator.forms import FAULT, RECORD, REFUSE_NEW
from crm_guard.simulator.resources import RESOURCES
from crm_guard.testing import ManualClock

STATUSES = {200, 201, 400, 404, 405, 409}
KEYS = sorted({*RECORD, *FAULT, *REFUSE_NEW, "new", "remaining", "operation", "advance", "what"})

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
    | st.sampled_from([*State, *FaultKind, "Leads", "1", "all", "READ", "GET", "(a", "[[a]", "aGk=", 500, 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
likely = st.fixed_dictionaries({"module": st.just("Leads")}, optional={"id": st.just("1"), "fields": values})
bodies = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), values, max_size=4).map(json.dumps).map(str.encode),
    st.dictionaries(st.sampled_from([*FAULT]), values, max_size=3).map(
        lambda d: json.dumps(d | {"kind": 500}).encode()
    ),
    likely.map(json.dumps).map(str.encode),
    values.map(json.dumps).map(str.encode),
    st.binary(max_size=20),
)
paths = st.one_of(
    st.sampled_from([path.replace("{id}", "1") for path in RESOURCES]),
    st.text(st.characters(max_codepoint=255), max_size=15),
)
queries = st.one_of(st.just(""), st.text(st.characters(max_codepoint=255), max_size=10), st.just("limit=2&since=1"))
methods = st.sampled_from(["GET", "POST", "POST", "POST", "DELETE", "PUT", "BREW", "HEAD"])
CALLS = (("GET", "Leads", b""), ("PUT", "Leads/1", b'{"data": [{"A": 1}]}'), ("GET", "Leads/1", b""),
         ("POST", "Leads", b'{"data": [{"Last_Name": "A"}]}'))  # fmt: skip


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(methods, paths, queries, bodies), min_size=1, max_size=6))
def test_any_request_is_answered_and_crm_goes_on(requests: Any) -> None:
    engine = Engine(clock=ManualClock())
    engine.add_record("Leads", "1")
    control = Control(engine)
    for method, path, query, body in requests:
        reply = control.handle(Request(method=method, path=f"/__simulator/{path}", query=query, body=body))
        assert reply.status in STATUSES
        told = json.loads(reply.body, parse_constant=float) if path.strip("/") else {}
        assert "error" not in told or told["error"]["message"]
    for method, path, body in CALLS:
        reply = engine.handle(Request(method=method, path=f"/crm/v8/{path}", query="fields=id", body=body))
        "\r\n".join(reply.headers.values()).encode("latin-1")
    for path in ("records", "calls", "faults", "refuse_new", "counts"):
        shown = control.handle(Request(method="GET", path=f"/__simulator/{path}"))
        assert (shown.status, bool(json.loads(shown.body))) == (200, True)
