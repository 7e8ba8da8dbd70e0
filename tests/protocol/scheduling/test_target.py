"""Where rows go, as bytes; which of them keep their order; and what is refused before anything is sent."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections import ChainMap, OrderedDict
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.request_records import read_request
from crm_guard._protocol.scheduling.target import Target

BASE = "https://www.zohoapis.com/crm/v8/"
A, B, C = (str(555000000000000001 + index) for index in range(3))
NAN = float("nan")


def target(method: str = "PUT", path: str = "Leads", body: Any = None, **about: Any) -> Target:
    return Target(method, CrmUrl.of(BASE + path), body, **about)


def upsert(module: str = "Leads", fields: Any = None, **about: Any) -> Target:
    return target("POST", f"{module}/upsert", {"duplicate_check_fields": fields} if fields else None, **about)


def sent(one: Target, *rows: Any) -> tuple[str, bytes | None]:
    return one.request([one.encode(row) for row in rows])


# -- where


@pytest.mark.parametrize(
    ("method", "path", "body", "most", "rows_per_credit"),
    [
        ("PUT", "Leads", None, 100, 10),
        ("POST", "Leads", {"trigger": []}, 100, 10),
        ("POST", "Leads/upsert", None, 100, 10),
        ("DELETE", "Leads", None, 100, 100),
        ("POST", "Leads/actions/assign_territories", None, 100, 100),
        ("POST", "Leads/actions/remove_territories", None, 100, 100),
        ("POST", "Leads/actions/add_tags", {"tags": []}, 500, 50),
        ("POST", "Leads/actions/remove_tags", {"tags": []}, 500, 50),
        ("POST", "Leads/actions/mass_update", {"data": []}, 500, 500),
        ("POST", "Leads/actions/mass_delete", None, 500, 500),
        ("POST", "Leads/actions/change_owner", {"owner": {}}, 500, 500),
    ],
)
def test_each_bulk_call_takes_as_many_rows_as_crm_does(
    method: str, path: str, body: Any, most: int, rows_per_credit: int
) -> None:
    one = target(method, path, body)
    assert (one.most, one.rows_per_credit) == (most, rows_per_credit)
    assert [one.credits_of(n) for n in (1, rows_per_credit, rows_per_credit + 1)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "Leads"),
        ("PUT", f"Leads/{A}"),
        ("DELETE", f"Leads/{A}"),
        ("POST", f"Leads/{A}/actions/add_tags"),
        ("POST", "Leads/actions/mass_convert"),
        ("POST", "__composite_requests"),
        ("POST", "settings/variables"),
        ("PUT", "settings"),
        ("POST", "coql"),
        ("PUT", ""),
    ],
)
def test_a_call_that_takes_no_rows_is_refused(method: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"takes no rows. What does: PUT, POST or DELETE \{module\}"):
        target(method, path)


def test_a_url_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="PUT a URL without /crm/vN/ takes no rows"):
        Target("PUT", CrmUrl.of("https://www.zohoapis.com/Leads"))


@pytest.mark.parametrize(
    ("path", "body", "error", "message"),
    [
        ("Leads", {"data": []}, ValueError, "must not have 'data': it names records"),
        ("Leads", {"cvid": "1"}, ValueError, "must not have 'cvid'"),
        ("Leads", [1], TypeError, "must be a mapping of members .* and is a list"),
        ("Leads", {1: 2}, TypeError, "whose names are texts"),
        ("Leads", {"x": object()}, TypeError, r"body\['x'\] holds a object, which is no JSON"),
        ("Leads", {"x": "\ud800"}, ValueError, r"body\['x'\] holds text that is no Unicode"),
        ("Leads/actions/add_tags", {"ids": [], "tags": []}, ValueError, "must not have 'ids'"),
        ("Leads/actions/add_tags", None, ValueError, "must have 'tags'"),
        ("Leads/actions/mass_update", {}, ValueError, "must have 'data'"),
        ("Leads/actions/change_owner", {}, ValueError, "must have 'owner'"),
        ("Leads?ids=1", None, ValueError, "must not have 'ids' in its query"),
        ("Leads?x=1&cvid=2#f", None, ValueError, "must not have 'cvid' in its query"),
    ],
)
def test_what_the_rows_do_not_fit_is_refused(path: str, body: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        target("PUT" if path.startswith("Leads?") or path == "Leads" else "POST", path, body)


def test_a_delete_carries_nothing_beside_its_ids() -> None:
    with pytest.raises(ValueError, match="body must be None"):
        target("DELETE", "Leads", {"x": 1})
    assert target("DELETE", "Leads", {}).most == 100


def test_an_id_in_a_fragment_is_none_in_the_query() -> None:
    assert sent(target("DELETE", "Leads?wf_trigger=false#ids=1"), A)[0] == (
        f"{BASE}Leads?wf_trigger=false&ids={A}#ids=1"
    )


# -- bytes


def test_rows_go_with_what_every_batch_carries() -> None:
    one = target("PUT", "Leads", {"trigger": ["workflow"], "é": 1})
    assert sent(one, {"id": A, "Name": "Zoë"}, {"id": B, "n": [1, None]}) == (
        BASE + "Leads",
        f'{{"data":[{{"id":"{A}","Name":"Zoë"}},{{"id":"{B}","n":[1,null]}}],"trigger":["workflow"],"é":1}}'.encode(),
    )


def test_ids_go_as_text_whatever_they_were() -> None:
    one = target("POST", "Leads/actions/add_tags", {"tags": [{"name": "x"}]})
    assert sent(one, A, int(B))[1] == f'{{"ids":["{A}","{B}"],"tags":[{{"name":"x"}}]}}'.encode()


def test_ids_to_delete_go_in_the_query() -> None:
    assert sent(target("DELETE"), A, int(B)) == (f"{BASE}Leads?ids={A},{B}", None)
    assert sent(target("DELETE", "Leads?wf_trigger=true"), A)[0] == f"{BASE}Leads?wf_trigger=true&ids={A}"


@pytest.mark.parametrize(
    "row", [OrderedDict(id=A), MappingProxyType({"id": A}), ChainMap({}, {"id": A}), {"id": A}], ids=str
)
def test_any_mapping_is_a_row(row: Any) -> None:
    one = target()
    assert (one.encode(row), one.record_id(row), tuple(one.keys(row))) == (f'{{"id":"{A}"}}'.encode(), A, (A,))


def test_mappings_inside_rows_are_encoded_too() -> None:
    assert target().encode({"Owner": MappingProxyType({"id": A})}) == f'{{"Owner":{{"id":"{A}"}}}}'.encode()


@pytest.mark.parametrize(
    ("method", "row", "error", "message"),
    [
        ("PUT", A, TypeError, "is a str; this call takes mappings"),
        ("PUT", [("id", A)], TypeError, "is a list; this call takes mappings"),
        ("PUT", None, TypeError, "is a NoneType; this call takes mappings"),
        ("PUT", {"x": object()}, TypeError, "holds a object, which is no JSON"),
        ("PUT", {"x": "\ud800"}, ValueError, "holds text that is no Unicode"),
        ("DELETE", {"id": A}, TypeError, "is a dict; this call takes record ids"),
        ("DELETE", None, TypeError, "is a NoneType; this call takes record ids"),
        ("DELETE", True, TypeError, "is a bool; this call takes record ids"),
        ("DELETE", 1.5, TypeError, "is a float; this call takes record ids"),
        ("DELETE", "", TypeError, "is a str; this call takes record ids"),
        ("DELETE", "1,2", ValueError, "is no record id"),
        ("DELETE", "1&x=2", ValueError, "is no record id"),
        ("DELETE", "٣", ValueError, "is no record id"),
        ("DELETE", -1, ValueError, "is no record id"),
    ],
)
def test_a_row_that_is_none_is_refused(method: str, row: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        target(method).encode(row)
    assert type(caught.value)("said once more")  # the ledger adds the row's number


def test_a_row_that_is_nested_too_deeply_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"x": deep}
    with pytest.raises(RecursionError):
        target().encode(deep)


IDS = st.from_regex(r"[0-9]{1,19}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.none() | IDS | st.integers(0, 2**60), VALUES), min_size=1, max_size=4))
def test_the_request_for_some_rows_names_them_in_order(given_rows: list[tuple[Any, Any]]) -> None:
    rows = [{"x": value} if one is None else {"x": value, "id": one} for one, value in given_rows]
    ids = [str(one) for one, _ in given_rows if one is not None]
    body = {"data": {"n": 1}}
    for one, some in (
        (target(), rows),
        (target("POST", "Leads/upsert", {"trigger": []}), rows),
        (target("DELETE"), ids),
        (target("POST", "Leads/actions/mass_update", body), ids),
        (target("POST", "Leads/actions/mass_delete"), ids),
    ):
        if not some:
            continue
        url, sent_body = sent(one, *some)
        read = read_request(one.method, CrmUrl.of(url), lambda sent_body=sent_body: sent_body)
        assert read.ids == tuple(map(one.record_id, some))
        assert (read.route, read.home) == (one.template.route, one.template.home)
        if sent_body and some is rows:
            assert json.loads(sent_body)["data"] == rows


@pytest.mark.parametrize("value", [Decimal(A), uuid.UUID(int=5)])
def test_an_id_of_another_type_is_the_text_that_is_sent(value: Any) -> None:
    one = target()
    row = {"id": value}
    read = read_request("PUT", CrmUrl.of(BASE + "Leads"), lambda: one.request([one.encode(row)])[1])
    assert read.ids == (one.record_id(row),) == (str(value),)
    assert list(one.keys(row)) == [str(value)]


@pytest.mark.parametrize("value", [None, True, 1.5, "", [], {"a": 1}])
def test_what_is_no_id_is_none_and_keeps_no_order(value: Any) -> None:
    assert target().record_id({"id": value}) is None
    assert list(target().keys({"id": value})) == []


def test_values_of_an_external_field_are_no_ids() -> None:
    one = target(external="Ext")
    assert one.record_id({"id": A, "Ext": "x"}) is None
    assert one.template.route.external
    assert target("DELETE", external="Ext").record_id(A) is None


# -- order


def test_rows_of_one_record_keep_their_order() -> None:
    assert list(target().keys({"id": A})) == list(target().keys({"id": int(A)})) == [A]
    assert list(target("DELETE").keys(A)) == list(target("DELETE").keys(int(A))) == [A]
    assert list(target().keys({})) == []


def test_an_insert_keeps_none() -> None:
    assert list(target("POST").keys({"id": A, "Email": "a"})) == []


def test_an_external_value_is_compared_without_case() -> None:
    one = target(external="Ext")
    assert list(one.keys({"Ext": "Ab", "id": A})) == list(one.keys({"Ext": " aB "})) != []
    assert list(one.keys({"Ext": None})) == []
    assert list(target("DELETE", external="Ext").keys("Ab")) == list(target("DELETE", external="Ext").keys("aB"))


@pytest.mark.parametrize(
    ("module", "field"),
    [
        ("Leads", "Email"),
        ("Contacts", "Email"),
        ("Accounts", "Account_Name"),
        ("Deals", "Deal_Name"),
        ("Products", "Product_Name"),
        ("Quotes", "Subject"),
        ("SalesOrders", "Subject"),
        ("Price_Books", "Price_Book_Name"),
    ],
)
def test_an_upsert_goes_by_the_field_of_its_module(module: str, field: str) -> None:
    assert list(upsert(module).keys({field: " X@y ", "Other": 1})) == [(field, "x@y")]


def test_an_upsert_goes_by_the_fields_that_it_names_and_by_ids() -> None:
    row = {"id": A, "Phone": "1", "Email": "e", "Code": "Q"}
    assert list(upsert(fields=["Phone", "Code"]).keys(row)) == [("id", A), ("Phone", "1"), ("Code", "q")]
    assert list(upsert(fields="Phone").keys(row)) == [("id", A), ("Phone", "1")]
    assert list(upsert("Custom").keys(row)) == [("id", A)]
    assert list(upsert(fields=["Phone", "Phone", "id"]).keys(row)) == [("id", A), ("Phone", "1")]
    assert list(upsert(external="Code").keys(row)) == [("Code", "q"), ("Email", "e")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ABC", "abc"),
        ("straße", "STRASSE"),
        (" a ", "a"),
        (1, "1"),
        (1.0, 1),
        (Decimal("1.5"), "1.5"),
        (True, "true"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        ({"id": "1", "name": "x"}, {"name": "x", "id": "1"}),
        ({1: 2, "a": 3}, {"a": 3, 1: 2}),
        (["a"], ["A"]),
    ],
)
def test_values_that_crm_may_take_for_the_same_are_one_key(one: Any, other: Any) -> None:
    keys = upsert(fields=["F"]).keys
    assert list(keys({"F": one})) == list(keys({"F": other})) != []


@pytest.mark.parametrize("value", [None, "", "  ", NAN, float("inf")])
def test_rows_without_a_value_do_not_wait_for_each_other(value: Any) -> None:
    assert list(upsert(fields=["F"]).keys({"F": value})) == []


@pytest.mark.parametrize("value", [0, False, [], 1, "null", 1.5])
def test_other_values_are_values(value: Any) -> None:
    assert len(list(upsert(fields=["F"]).keys({"F": value}))) == 1
    assert list(upsert(fields=["F"]).keys({"F": value})) != list(upsert(fields=["G"]).keys({"G": value}))


def test_a_key_of_the_users_own_counts_alone() -> None:
    one = target(key=lambda row: row["n"])
    assert list(one.keys({"id": A, "n": 5})) == [5]
    assert list(one.keys({"id": A, "n": None})) == []
    assert list(target("POST", key=lambda row: row["n"]).keys({"n": 0})) == [0]


def test_a_key_that_cannot_be_compared_is_refused_with_its_row() -> None:
    with pytest.raises(TypeError, match="has a key of type list, which cannot be compared"):
        target(key=lambda row: [row]).keys({"id": A})


def test_a_field_whose_name_is_no_text_is_named_as_such() -> None:
    with pytest.raises(TypeError, match="has a field whose name is a NoneType"):  # more cells than columns in a CSV
        target().encode({"id": A, None: ["x"]})


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, {"x": -math.inf}]])
def test_a_number_that_is_none_would_clear_a_field_and_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        target().encode({"id": A, "Revenue": value})
    assert target().encode({"id": A, "Revenue": None}) == f'{{"id":"{A}","Revenue":null}}'.encode()
