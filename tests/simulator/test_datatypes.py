"""Which data type a field has, by its name and by all of its values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator.datatypes import common_type, type_of

if TYPE_CHECKING:
    from crm_guard.simulator import Engine

    from .conftest import Send

DAY, INSTANT, LOOKUP = "2024-01-02", "2024-01-02T10:00:00+01:00", {"id": "1"}


@pytest.mark.parametrize("name", ["Last_Name", "Company", "City", "Note_Content"])
@pytest.mark.parametrize("value", [DAY, INSTANT, "a@b.example", 5])
def test_a_text_field_of_the_usual_modules_is_text_whatever_it_holds(name: str, value: Any) -> None:
    assert type_of(name, value) == "text"


@pytest.mark.parametrize(("name", "kind"), [("Email", "email"), ("Phone", "phone"), ("Stage", "picklist")])
def test_other_usual_fields_are_what_they_are_whatever_they_hold(name: str, kind: str) -> None:
    assert type_of(name, DAY) == kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((), None),
        ((None, "", [], float("nan")), None),
        ((5, 1.5), "double"),
        ((5, None), "integer"),
        ((DAY, INSTANT), "datetime"),
        ((DAY, "Smith"), "text"),
        ((5, "Smith"), "text"),
        ((True, 5), "text"),
        (("a@b.example", "Smith"), "text"),
        ((LOOKUP, "1"), "lookup"),
        ((["a"], "a"), "multiselectpicklist"),
        ((["a"], [{"b": 1}]), "subform"),
    ],
)
def test_the_data_type_is_the_narrowest_that_fits_all_values(values: tuple[Any, ...], kind: str | None) -> None:
    assert common_type("Some_Field", values) == kind
    assert common_type("Some_Field", values[::-1]) == kind


@pytest.mark.parametrize("name", ["Last_Name", "Some_Field"])
@pytest.mark.parametrize("order", [(DAY, "Smith"), ("Smith", DAY)])
def test_a_record_that_holds_a_day_changes_no_answer_about_a_name(
    engine: Engine, send: Send, name: str, order: tuple[str, str]
) -> None:
    for number, value in enumerate(order, start=1):
        engine.add_record("Leads", number, fields={name: value})
    expected = str(order.index("Smith") + 1)
    query = {"select_query": f"select id from Leads where {name} = 'Smith'"}  # noqa: S608
    replies = [
        send(engine, "POST", "coql", query),
        send(engine, "GET", f"Leads/search?fields=id&criteria=({name}:equals:Smith)"),
    ]
    assert [[row["id"] for row in reply.json()["data"]] for reply in replies] == [[expected], [expected]]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_finite_number_is_no_json_and_like_nothing_in_a_record(
    engine: Engine, send: Send, number: str
) -> None:
    raw = b'{"data":[{"Last_Name":"x","N":%s}]}' % number.encode()
    assert send(engine, "POST", "Leads", raw=raw).status == 400
    assert engine.records == {}
    fields = {"N": float(number), "Rows": [{"inner": float(number), "text": "x"}]}
    key = engine.add_record("Leads", fields=fields)
    engine.add_record("Leads", fields={"N": -5})
    shown = {"id": key, "N": None, "Rows": [{"inner": None, "text": "x"}]}
    body = send(engine, "GET", f"Leads/{key}?fields=N,Rows").body
    assert json.loads(body, parse_constant=pytest.fail)["data"] == [shown]
    for where in ("N is null", "id > 0 order by N limit 1"):
        query = {"select_query": f"select N, Rows from Leads where {where}"}  # noqa: S608
        body = send(engine, "POST", "coql", query).body
        assert json.loads(body, parse_constant=pytest.fail)["data"] == [shown]
