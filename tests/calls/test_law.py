"""The law: a guarded batch against a CRM that locks equals a plain batch against a twin that never did."""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard import GuardAdapter, GuardSettings, get_report
from crm_guard.simulator import FOREIGN_ID, Engine, Simulator, State

from .world import CALLS, PATIENT, START, BatchCall, guarded, ids_of, items_of, unguarded

STAMPS = ("Modified_Time", "Created_Time")
VERSIONS = ("2", "2.1", "3", "4", "5", "6", "7", "8", "9")
BLOCKS = (
    State.RECORD_LOCKING,
    State.ZIA_VISION_REJECTED,
    State.ZIA_VISION_PENDING,
    State.APPROVAL_PROCESS_PENDING,
    State.REVIEW_PROCESS_PENDING,
    State.MERGE_PENDING,
)
LIMIT = 100
LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


@dataclass(frozen=True)
class Lead:
    """A record before the call, and what it becomes.

    Attributes:
        then: State behind the lock, or the state from the start.
        refusals: How many calls the lock refuses.
        seconds: How long the lock lasts.
        flaw: What is wrong with its row or id: `unknown`, `invalid`, `new` (a row without an id), or nothing.
        as_number: Whether its id is written as a number.
    """

    then: State = State.APPROVED
    refusals: int | None = None
    seconds: float | None = None
    flaw: str = ""
    as_number: bool = False

    @property
    def locks(self) -> bool:
        return self.exists and (self.refusals is not None or self.seconds is not None)

    @property
    def exists(self) -> bool:
        return self.flaw not in {"unknown", "new"}


@dataclass(frozen=True)
class Case:
    """One drawn call."""

    call: BatchCall
    version: str
    leads: tuple[Lead, ...]
    options: dict[str, Any]
    settings: dict[str, Any]
    blank: str = ""
    extra: str = ""
    repeats: tuple[int, ...] = ()

    @functools.cached_property
    def ids(self) -> list[str]:
        known = ids_of(len(self.leads))
        return [*known, *(known[index] for index in self.repeats)]

    @functools.cached_property
    def shown(self) -> tuple[Lead, ...]:
        return (*self.leads, *(self.leads[index] for index in self.repeats))

    def written(self, index: int) -> str:
        """Return one record as the caller writes it."""
        lead, record_id = self.shown[index], self.ids[index]
        if self.call.home in {"query", "encoded"}:
            return record_id
        if self.call.home != "data":
            return f"{self.blank}{record_id}" if lead.as_number else f'{self.blank}"{record_id}"'
        key = record_id if lead.as_number else f'"{record_id}"'
        fields = {"invalid": '"Company":1e3', "new": f'"Last_Name":"N{index}"'}.get(
            lead.flaw, '"Company":"\\u0416Ж"'
        )
        head = "" if lead.flaw == "new" else f'"id":{self.blank}{key},'
        return f'{{{self.blank}{head}"n":1.0,{fields},"n":{index}}}'

    def request(self) -> requests.PreparedRequest:
        call = self.call
        request = call.request([self.written(index) for index, _ in enumerate(self.ids)], self.version)
        if self.extra and request.body:
            request.body = bytes(request.body).replace(b"{", f'{{{self.blank}"extra":{self.extra},'.encode(), 1)
            request.headers["Content-Length"] = str(len(request.body))
        return request

    def settle(self, engine: Engine, *, locks: bool) -> None:
        """Add the leads to an engine: with their locks, or as they are once these are gone."""
        for record_id, lead in zip(ids_of(len(self.leads)), self.leads, strict=True):
            if not lead.exists:
                continue
            fields = {"Last_Name": "L", "Email": f"{record_id}@x.test"}
            if locks and lead.locks:
                engine.add_record(
                    "Leads",
                    record_id,
                    refusals=lead.refusals,
                    locked_for=lead.seconds,
                    then=lead.then,
                    fields=fields,
                )
            else:
                engine.add_record("Leads", record_id, state=lead.then, fields=fields)


LOCKS = (
    (None, None),
    *((refusals, None) for refusals in range(1, 5)),
    (None, 0.5),
    (None, 3.0),
    (None, 6.5),
    (2, 3.0),
)


def lead_of(number: int, call: BatchCall) -> Lead:
    """Return a lead for a number: one draw for all of it keeps hundreds of examples fast."""
    flaws = {"data": ["unknown", "invalid"], "upsert": ["unknown", "invalid", "new"], "change_owner": []}
    # One unknown id spoils a whole change of owners.
    possible = flaws.get(call.name, flaws["data"] if call.home == "data" else ["unknown"])
    number, lock = divmod(number, len(LOCKS))
    number, state = divmod(number, 6 + len(BLOCKS))
    as_number, flaw = divmod(number % 24, 12)
    return Lead(
        then=BLOCKS[state] if state < len(BLOCKS) else State.APPROVED,
        refusals=LOCKS[lock][0],
        seconds=LOCKS[lock][1],
        flaw=possible[flaw - 9] if 9 <= flaw < 9 + len(possible) else "",
        as_number=bool(as_number),
    )


# Every strategy is made once: hypothesis looks into each new one anew.
@functools.cache
def leads_for(call: BatchCall, least: int, most: int) -> st.SearchStrategy[list[Lead]]:
    numbers = st.integers(0, len(LOCKS) * (6 + len(BLOCKS)) * 24 - 1)
    return st.lists(numbers.map(lambda number: lead_of(number, call)), min_size=least, max_size=most)


@functools.cache
def policies(attempts: tuple[int, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "wait_initial": st.floats(0.5, 2.0),
            "wait_max": st.floats(2.0, 9.0),
            "wait_exp_base": st.floats(1.0, 3.0),
            "wait_jitter": st.floats(0.0, 0.5),
            "raise_on": st.just("never"),
            "attempts": st.sampled_from(attempts),
        }
    )


one_of = functools.cache(st.sampled_from)
indexes = functools.cache(lambda size, most: st.lists(st.integers(0, size - 1), max_size=most))
OPTIONS = st.fixed_dictionaries(
    {
        "shuffle": st.booleans(),
        "seed": st.integers(0, 999),
        "details_style": st.sampled_from(["seed", "oas"]),
        "sandbox": st.booleans(),
        "caller": st.sampled_from(["direct", "sdk"]),
        "gzip": st.booleans(),
    }
)
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 40, LIMIT)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    call = CALLS[draw(one_of(tuple(CALLS)))]
    version = draw(one_of(tuple(version for version in VERSIONS if float(version) >= call.since)))
    size = draw(one_of(tuple(size for size in SIZES if size <= call.most)))
    if size == LIMIT:
        some = draw(leads_for(call, 3, 6))
        leads = tuple(some[index % len(some)] if index % 7 == 0 else Lead() for index in range(size))
    else:
        leads = tuple(draw(leads_for(call, size, size)))
    # A row that is sent again overtakes later rows of the same record: see test_matching.
    room = 0 if call.home == "data" or size == LIMIT else 2
    repeats = draw(indexes(size, room))
    # A record that is deleted once the lock is gone is deleted by the second of two ids as well as by the first.
    calm = [index for index in repeats if not leads[index].locks or call.name == "add_tags"]
    hurried = () if any(leads[index].locks for index in calm) else (1, 2, 3)
    return Case(
        call,
        version,
        leads,
        draw(OPTIONS),
        draw(policies((1000, 1000, 1000, *hurried))),
        draw(one_of(("", " ", "\n\t "))),
        draw(one_of(("", "null", "1.50", '"\\u00e9é"', '{"data":[1],"ids":[2]}'))),
        tuple(calm),
    )


def without_stamps(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_stamps(inner) for key, inner in value.items() if key not in STAMPS}
    return [without_stamps(inner) for inner in value] if isinstance(value, list) else value


def as_mass_delete(body: Any) -> Any:
    """Return the body of a mass deletion with one form for its INVALID_DATA.

    CRM says it bare and in more words of a request with one id (zoho/crm-oas v8.0, massDelete). Where one id of
    several is sent again, that stands among the results of the others.
    """
    items = body["data"] if isinstance(body.get("data"), list) else [body]
    for item in items:
        if item["code"] == "INVALID_DATA":
            item["details"] = {"id": item["details"]["id"]}
    return {"data": items}


def said(response: requests.Response, call: BatchCall) -> Any:
    """Return the body without times; items whose order is documented nowhere are sorted."""
    body = without_stamps(response.json())
    if call.name == "mass_delete":
        body = as_mass_delete(body)
    if isinstance(body.get("data"), list) and not call.ordered:
        body["data"] = sorted(json.dumps(item) for item in body["data"])
    return body


def shown_headers(response: requests.Response) -> dict[str, str]:
    """Return the headers that do not speak of how the body travelled."""
    return {
        name.lower(): value
        for name, value in response.headers.items()
        if name.lower() not in {"content-length", "content-encoding"}
    }


def usual_status(case: Case, engine: Engine, twin: requests.Response) -> int:
    """Return the status that the guard can know: an unusual one for a mixed batch must have been seen."""
    mixed = len({item["status"] for item in items_of(twin)}) == 2
    seen = any(b'"success"' in call.response_body and b'"error"' in call.response_body for call in engine.calls)
    if seen or not mixed:
        return twin.status_code
    return 202 if case.call.name == "change_owner" else 200 if "tags" in case.call.name else 207


def check(case: Case, engine: Engine, response: requests.Response) -> None:
    twin_engine, twin = unguarded(**case.options)
    case.settle(twin_engine, locks=False)
    for record_id in refused_to_the_end(case, engine):  # the budget was spent: for these the lock was never gone
        twin_engine.set_state(record_id, State.ZIA_VISION_VALIDATION)
    plain = twin.send(case.request())
    assert said(response, case.call) == said(plain, case.call)
    assert response.status_code == usual_status(case, engine, plain)
    assert shown_headers(response) == shown_headers(plain)
    assert engine.write_counts == twin_engine.write_counts
    assert {key: (found.fields, sorted(found.tags), found.owner) for key, found in engine.records.items()} == {
        key: (found.fields, sorted(found.tags), found.owner) for key, found in twin_engine.records.items()
    }
    if "Content-Encoding" not in response.headers:
        assert int(response.headers["Content-Length"]) == len(response.content)
    check_report(response)


def check_report(response: requests.Response) -> None:
    """The report says of each item what the body says, and names its record rightly where the item does."""
    report, items = get_report(response), response.json().get("data")
    if not isinstance(items, list):
        return
    assert [found.code for found in report.outcomes] == [item["code"] for item in items]
    assert not any(found.uncertain for found in report.outcomes)
    for found, item in zip(report.outcomes, items, strict=True):
        assert item["details"].get("id") in {None, found.record_id}


def refused_to_the_end(case: Case, engine: Engine) -> list[str]:
    """Return the records that were locked still when they were named last, by the engine's log."""
    found = []
    for record_id, lead in zip(ids_of(len(case.leads)), case.leads, strict=True):
        if not lead.locks:
            continue
        named = [call.at for call in engine.calls for name in call.record_ids if name == record_id]
        patient = lead.refusals is None or len(named) <= lead.refusals
        early = lead.seconds is None or named[-1] < START + lead.seconds
        if patient and early:
            found.append(record_id)
    return found


def check_sends(case: Case, engine: Engine) -> None:
    """Each resend asks for records that the send before refused, and never for one that no passing lock refused."""
    for before, after in zip(engine.calls, engine.calls[1:], strict=False):
        assert not Counter(after.record_ids) - Counter(before.refused_ids)
    resent = {record_id for call in engine.calls[1:] for record_id in call.record_ids}
    assert resent <= {record_id for record_id, lead in zip(case.ids, case.shown, strict=True) if lead.locks}


@given(case=cases())
@settings(LAW, max_examples=200)
def test_a_guarded_batch_answers_and_writes_as_if_it_had_never_been_locked(case):
    world = guarded(case.settings, **case.options)
    case.settle(world.engine, locks=True)
    response = world.send(case.request())
    check_sends(case, world.engine)
    check(case, world.engine, response)


@given(case=cases())
@settings(LAW, max_examples=50)
def test_the_law_holds_over_real_sockets(case):
    options = case.options
    policy = {**PATIENT, **case.settings, "wait_initial": 0.001, "wait_max": 0.002}
    leads = tuple(
        Lead(lead.then, lead.refusals or (2 if lead.seconds else None), None, lead.flaw, lead.as_number)
        for lead in case.leads[:20]
    )
    case = Case(case.call, case.version, leads, options, case.settings, case.blank, case.extra)
    with Simulator(**options) as crm, requests.Session() as session:
        session.mount(crm.url + "/", GuardAdapter(GuardSettings(**policy)))
        case.settle(crm, locks=True)
        request = case.request()
        request.url = str(request.url).replace("https://www.zohoapis.com", crm.url)
        request.headers["Accept-Encoding"] = "gzip"
        response = session.send(request)
        check_sends(case, crm)
        assert crm.connections == 1
        check(case, crm, response)


def test_no_record_of_these_tests_is_the_foreign_one():
    assert FOREIGN_ID not in ids_of(500)
