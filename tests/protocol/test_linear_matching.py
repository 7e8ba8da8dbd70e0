"""Laying answers on requests takes time in proportion to their size, and gives what the plain way gives."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard._protocol import json_spans as _spans
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.envelope import Item, read_envelope
from crm_guard._protocol.matching import match, match_named, match_response, pointed_index, records, repointed
from crm_guard._protocol.request_records import read_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ORIGIN = "https://www.zohoapis.com/crm/v8/"


def item(record_id: str | None = None, code: str = "SUCCESS", **details: Any) -> Item:
    told = {"id": record_id, **details} if record_id else details
    status = "success" if code == "SUCCESS" else "error"
    value = {"code": code, "status": status, "message": "m", "details": told}
    return Item(json.dumps(value).encode(), value)


def pointing(place: int, record_id: str | None = None, code: str = "SUCCESS") -> Item:
    return item(record_id, code, json_path=f"$.data[{place}].id")


class Doubt(Exception):  # noqa: N818
    """The answer cannot be laid on what was sent."""


def naive_match(
    items: Sequence[Item], sent: Sequence[str | None], *, ids_only: bool, ordered: bool
) -> list[int | None] | None:
    """The rules of `match`, said as plainly as can be: quadratic, and worse."""
    places: list[int | None] = []
    try:
        for index, one in enumerate(items):
            places.append(naive_claim(places, index, one, sent))
    except Doubt:
        return None
    in_order = all(place in (None, index) for index, place in enumerate(places))
    distinct = None not in sent and "" not in sent and len(set(sent)) == len(sent)
    if not (in_order or ids_only or distinct):
        return None
    unnamed = [index for index, place in enumerate(places) if place is None]
    if in_order and (ordered or all(one.record_id in (None, *sent) for one in items)):
        places = list(range(len(sent)))
    elif len({items[index].raw for index in unnamed}) == 1:
        left = [place for place in range(len(sent)) if place not in places]
        for index, place in zip(unnamed, left, strict=True):
            places[index] = place
    return places if all(map(naive_fit, items, [place is not None and sent[place] for place in places])) else None


def naive_claim(places: list[int | None], index: int, one: Item, sent: Sequence[str | None]) -> int | None:
    at, acted = pointed_index(one, "data", len(sent)), one.succeeded or one.guarded
    homes = [place for place, record_id in enumerate(sent) if one.record_id and record_id == one.record_id]
    free = [place for place in homes if place not in places]
    if one.record_id and not homes and None not in sent and acted:
        raise Doubt
    if homes and not free:
        raise Doubt
    place = at if at is not None or not homes else index if index in free else free[0]
    if place is not None and (place in places or (homes and place not in free)):
        raise Doubt
    return place


def naive_fit(one: Item, name: str | bool | None) -> bool:
    acted = one.succeeded or one.guarded
    return not acted or one.record_id is None or name in (False, None, one.record_id)


IDS = st.sampled_from(["1", "2", "3", None])
CODES = st.sampled_from(["SUCCESS", "RECORD_LOCKED", "INVALID_DATA"])
ITEMS = st.one_of(
    st.builds(item, IDS, CODES), st.builds(pointing, st.integers(0, 7), IDS, CODES), st.builds(item, st.just("9"))
)
SENT = st.lists(IDS | st.just(""), max_size=7)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(data=st.data(), sent=SENT, ids_only=st.booleans(), ordered=st.booleans())
def test_matching_gives_what_the_plain_way_gives(
    data: st.DataObject, sent: list[str | None], ids_only: bool, ordered: bool
) -> None:
    """Also where an answer is made of the very ids, in any order, so that it often fits."""
    names = data.draw(st.permutations(sent))
    fitting = st.tuples(*(st.builds(item, st.sampled_from([name or None, None]), CODES) for name in names))
    items = data.draw(st.lists(ITEMS, min_size=len(sent), max_size=len(sent)) | fitting)
    assert match(items, sent, ids_only=ids_only, ordered=ordered) == naive_match(
        items, sent, ids_only=ids_only, ordered=ordered
    )


def lines_of(action: Callable[[], Any]) -> int:
    """Count the lines of Python that `action` runs."""
    count = 0

    def trace(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def answer_to(sent: Sequence[str]) -> bytes:
    found = [{"code": "SUCCESS", "status": "success", "message": "", "details": {"id": name}} for name in sent]
    return json.dumps({"data": found}).encode()


def of_one_id(size: int) -> tuple[list[Item], list[str | None]]:
    return [item("1") for _ in range(size)], ["1"] * size


def of_one_id_each_second_displaced(size: int) -> tuple[list[Item], list[str | None]]:
    """Each place that an item would keep is taken by the one before."""
    return [item("1") if index % 2 else pointing(index + 1, "1") for index in range(size)], ["1"] * size


def of_two_ids_exchanged(size: int) -> tuple[list[Item], list[str | None]]:
    sent: list[str | None] = [str(place % 2) for place in range(size)]
    return [item(str(1 - place % 2)) for place in range(size)], sent


def of_two_ids_in_blocks(size: int) -> tuple[list[Item], list[str | None]]:
    half = size // 2
    return [item("1" if place < half else "2") for place in range(size)], ["2"] * half + ["1"] * (size - half)


def unnamed(size: int) -> tuple[list[Item], list[str | None]]:
    return [item() for _ in range(size - 1)] + [pointing(0)], [None] * size


ROWS = [of_one_id, of_one_id_each_second_displaced, of_two_ids_exchanged, of_two_ids_in_blocks, unnamed]


class TestFourTimesTheRowsTakeFourTimesTheWork:
    @pytest.mark.parametrize("rows", ROWS)
    @pytest.mark.parametrize("ids_only", [False, True])
    def test_to_match(self, rows: Callable[[int], Any], ids_only: bool) -> None:
        few, many = rows(60), rows(240)
        assert lines_of(lambda: match(*many, ids_only=ids_only)) < 6 * lines_of(
            lambda: match(*few, ids_only=ids_only)
        )
        assert lines_of(lambda: match_named(*many)) < 6 * lines_of(lambda: match_named(*few))

    @pytest.mark.parametrize("names", ["1", "12"])
    def test_to_lay_a_whole_answer_and_to_name_its_records(self, names: str) -> None:
        def work(size: int) -> Callable[[], Any]:
            sent = list(names) * size
            body = json.dumps({"ids": sent}).encode()
            envelope = read_envelope(answer_to(sent[::-1]))
            assert envelope is not None

            def run() -> None:
                call = read_request("POST", CrmUrl.of(f"{ORIGIN}Leads/actions/add_tags"), lambda: body)
                matched = match_response(call, envelope)
                assert matched is not None
                assert records(call, envelope, matched) == records(call, envelope, None) == sent[::-1]
                call.narrow(range(1, len(sent)))

            return run

        assert lines_of(work(200)) < 6 * lines_of(work(50))


def test_of_an_item_nested_for_ever_each_byte_is_read_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    read, value_at = [0], _spans._value

    def counted(text: str, at: int) -> Any:
        found = value_at(text, at)
        read[0] += found.end - found.start
        return found

    monkeypatch.setattr(_spans, "_value", counted)
    value: dict[str, Any] = {"code": "X", "status": "error", "message": "m" * 10_000, "details": {}}
    for _ in range(200):
        value = {**value, "message": "", "details": {"errors": [value], "json_path": "$.data[0].id"}}
    raw = json.dumps(value).encode()
    again = repointed(Item(raw, value), "data", 0, 7)
    assert again.details["json_path"] == "$.data[7].id"
    assert again.raw.count(b"$.data[7].id") == 5  # the item, and four levels of errors: CRM has one
    assert read[0] < 20 * len(raw)
