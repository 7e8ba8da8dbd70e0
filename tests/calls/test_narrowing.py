"""A resend asks for the refused records alone, in the caller's own bytes."""

from __future__ import annotations

import copy
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard import get_report
from crm_guard.locks import Unshared

from .world import ALL_CALLS, CALLS, ORIGIN, add_leads, guarded, ids_of, items_of, prepared

if TYPE_CHECKING:
    from collections.abc import Collection

IN_BODY = [name for name in ALL_CALLS if CALLS[name].home in {"data", "ids"}]
IN_STRING = "add_tags_string"
BLANKS = st.sampled_from(["", " ", "\t", "\n", "\r\n  "])
VALUES = st.sampled_from(
    [
        "1.0",
        "1e3",
        "-0",
        "1E+2",
        "123456789012345678901234567890",
        "0.10000000000000000555",
        '"\\u00e9\\/"',
        '"é 中 🙂"',
        '"]}\\",[{"',
        '"$.data[0].id"',
        "null",
        '{"id":"1","data":[1, 2 ],"a":{}}',
        "[ ]",
        "[[1],{}]",
    ]
)


def test_a_resend_holds_the_refused_records_and_every_other_byte_of_the_request():
    for name in ALL_CALLS:
        world, call = guarded(), CALLS[name]
        ids = add_leads(world.engine, [0, 1, 0, 2, 2])
        records = call.records(ids)
        world.send(call.request(records))
        picks = [records[1:2] + records[3:], records[3:]]
        assert [body for *_, body in world.resends] == [call.body(pick) or b"" for pick in picks], name
        assert [url for _, url, *_ in world.resends] == [call.url(pick) for pick in picks], name
        assert all(
            int(headers.get("Content-Length", 0)) == len(body) for _, _, headers, body in world.transport.sent
        ), name


@pytest.mark.parametrize("name", ALL_CALLS)
def test_a_batch_in_which_all_are_locked_is_sent_again_byte_for_byte(name):
    world, call = guarded(), CALLS[name]
    request = call.request(call.records(add_leads(world.engine, [2, 2, 2])))
    if request.body:
        request.body = bytes(request.body).replace(b",", b" ,  ")
        request.headers["Content-Length"] = str(len(request.body))
    world.send(request)
    assert len(world.transport.sent) == 3
    assert all(sent == world.transport.sent[0] for sent in world.transport.sent)


@st.composite
def written_batches(draw: st.DrawFn) -> tuple[str, list[str], str, list[int]]:
    """Return what stands before the records, the records, what stands behind, and which are locked."""
    ids = ids_of(draw(st.integers(2, 5)))
    blank = lambda: draw(BLANKS)  # noqa: E731
    rows = []
    for record_id in ids:
        quoted = record_id if draw(st.booleans()) else f'"{record_id}"'
        fields = [f'"id"{blank()}:{blank()}{quoted}']
        fields += [f'"{key}":{draw(VALUES)}' for key in draw(st.lists(st.sampled_from("xyxé"), max_size=3))]
        rows.append(f"{{{blank()}{f'{blank()},{blank()}'.join(draw(st.permutations(fields)))}{blank()}}}")
    extras = [f'{blank()}"{key}"{blank()}:{draw(VALUES)}{blank()}' for key in ("trigger", "é", "ids ", "DATA")]
    cut = draw(st.integers(0, len(extras)))
    before = "".join(f"{extra}," for extra in extras[:cut])
    after = "".join(f",{extra}" for extra in extras[cut:])
    locked = draw(st.sets(st.integers(0, len(ids) - 1), min_size=1, max_size=len(ids) - 1))
    return f'{blank()}{{{before}{blank()}"data":{blank()}', rows, f"{blank()}{after}}}{blank()}", sorted(locked)


@given(written=written_batches())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_caller_writes_around_and_in_the_records_stays(written):
    before, rows, after, locked = written
    world = guarded()
    add_leads(world.engine, [int(index in locked) for index, _ in enumerate(rows)])
    world.send(prepared("PUT", f"{ORIGIN}/crm/v8/Leads", f"{before}[{' ,'.join(rows)} ]{after}".encode()))
    ((*_, sent),) = world.resends
    assert sent == f"{before}[{','.join(rows[index] for index in locked)}]{after}".encode()


@pytest.mark.parametrize("name", [*IN_BODY, IN_STRING])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_the_content_type_of_the_request_does_not_matter(name, content_type):
    world, call = guarded(), CALLS[name]
    headers = {"Content-Type": content_type} if content_type else {}
    response = world.send(call.request(call.records(add_leads(world.engine, [0, 1])), headers=headers))
    assert [found.succeeded for found in get_report(response).outcomes] == [True, True]
    assert world.resends[0][2].get("Content-Type") == content_type


@pytest.mark.parametrize("name", [name for name in ALL_CALLS if CALLS[name].home != "data"])
def test_ids_named_twice_are_sent_again_as_often_as_they_were_refused(name):
    world, call = guarded(), CALLS[name]
    first, second = add_leads(world.engine, [0, 4])
    records = call.records([first, second, first, second])
    world.send(call.request(records))
    assert {
        record for _, url, _, body in world.resends for record in [body, url] if first.encode() in body
    } == set()
    named = [call.record_ids for call in world.engine.calls]
    assert named == [(first, second, first, second), (second, second), (second, second)]


def test_ids_as_numbers_stay_numbers():
    world = guarded()
    one, two = add_leads(world.engine, [0, 1])
    url = f"{ORIGIN}/crm/v8/Leads/actions/mass_update"
    world.send(prepared("POST", url, f'{{"ids":[{one}, {two}],"data":[{{"Company":"Z"}}]}}'))
    assert world.resends[0][3] == f'{{"ids":[{two}],"data":[{{"Company":"Z"}}]}}'.encode()


def test_a_list_inside_a_string_keeps_its_own_escapes_and_numbers():
    world = guarded()
    one, two, three = add_leads(world.engine, [0, 1, 1])
    body = json.dumps({"tags": [{"name": "é"}], "ids": f' [ "{one}" ,{two} , "{three}" ]'}, ensure_ascii=False)
    world.send(prepared("POST", f"{ORIGIN}/crm/v8/Leads/actions/add_tags", body.encode()))
    kept = json.dumps(f'[{two},"{three}"]')
    assert world.resends[0][3] == f'{{"tags": [{{"name": "é"}}], "ids": {kept}}}'.encode()


def test_spaces_between_ids_of_a_query_do_not_matter():
    world = guarded()
    one, two = add_leads(world.engine, [0, 1])
    request = requests.Request("DELETE", f"{ORIGIN}/crm/v8/Leads", params={"ids": f"{one}, {two}", "x": "é"})
    response = world.send(request.prepare())
    assert get_report(response).reason is None
    assert [url.partition("?")[2] for _, url, *_ in world.resends] == [f"ids=+{two}&x=%C3%A9"]
    assert world.engine.write_counts == {one: 1, two: 1}


@pytest.mark.parametrize("name", ALL_CALLS)
@pytest.mark.parametrize("gives_up", [False, True])
def test_the_callers_request_is_not_touched(name, gives_up):
    def refresh(request: requests.PreparedRequest) -> None:
        request.headers["Authorization"] = "renewed"
        request.register_hook("response", print)

    world = guarded({"attempts": 3, "raise_on": "never"}, adapter={"refresh": refresh})
    ids = add_leads(world.engine, [0, 9 if gives_up else 1])
    request = CALLS[name].of(ids)
    request.hooks["response"].append(len)
    before = state_of(request)
    response = world.send(request)
    assert state_of(request) == before
    assert response.request is request
    assert "renewed" in str(world.resends[0][2])


def state_of(request: requests.PreparedRequest) -> dict[str, Any]:
    state = {key: value for key, value in vars(request).items() if key != "_cookies"}
    return copy.deepcopy({**state, "headers": dict(request.headers)})


def test_a_file_is_read_again_for_the_refused_records():
    world, call = guarded(), CALLS["update"]
    records = call.records(add_leads(world.engine, [0, 2, 1]))
    body = call.body(records)
    request = prepared("PUT", call.url(records), io.BytesIO(body))
    assert get_report(world.send(request)).reason is None
    assert [sent for *_, sent in world.transport.sent] == [body, call.body(records[1:]), call.body(records[1:2])]
    assert all(headers.get("Transfer-Encoding") is None for _, _, headers, _ in world.resends)


class AlwaysLocked(Unshared):
    """Believes that every record is locked."""

    def __bool__(self) -> bool:
        return True

    def knows(self, keys: Collection[str]) -> bool:
        return bool(keys)


def test_a_file_is_whole_when_the_wait_comes_before_the_first_send():
    world, call = guarded(adapter={"lock_registry": AlwaysLocked()}), CALLS["update"]
    records = call.records(add_leads(world.engine, [0, 1]))
    body = call.body(records)
    response = world.send(prepared("PUT", call.url(records), io.BytesIO(body)))
    assert [sent for *_, sent in world.transport.sent] == [body, call.body(records[1:])]
    assert (response.status_code, len(world.clock.waits)) == (200, 2)


def test_a_stream_that_cannot_be_sent_twice_is_sent_once():
    world, call = guarded(), CALLS["update"]
    records = call.records(add_leads(world.engine, [0, 1]))
    response = world.send(prepared("PUT", call.url(records), iter([call.body(records)])))
    assert (get_report(response).reason, len(world.transport.sent)) == ("not_replayable", 1)
    assert [item["status"] for item in items_of(response)] == ["success", "error"]


def test_the_rest_of_a_file_is_bytes_that_a_redirect_need_not_rewind():
    world, call = guarded({"attempts": 1}), CALLS["update"]
    records = call.records(add_leads(world.engine, [0, 1]))
    response = world.send(prepared("PUT", call.url(records), io.BytesIO(call.body(records))))
    rest = get_report(response).remaining_request()
    assert (rest.body, rest._body_position) == (call.body(records[1:]), None)
