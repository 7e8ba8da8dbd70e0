"""Searching and counting records over the API."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from crm_guard.simulator import Engine, Request

if TYPE_CHECKING:
    from crm_guard.simulator import Reply

    from .conftest import Send

WHOLE = {"fields": "id"}


def search(engine: Engine, module: str = "Leads", **params: object) -> Reply:
    query = urlencode({**WHOLE, **params})
    return engine.handle(Request(method="GET", path=f"/crm/v8/{module}/search", query=query))


def found(engine: Engine, module: str = "Leads", **params: object) -> set[str]:
    reply = search(engine, module, **params)
    return {row["id"] for row in reply.json()["data"]} if reply.body else set()


@pytest.fixture
def people(engine: Engine) -> Engine:
    engine.add_record(
        "Leads",
        1,
        fields={
            "Last_Name": "Boyle",
            "First_Name": "Patricia",
            "Company": "Zylker",
            "Email": "Pat.Boyle@Zylker.example",
            "Phone": "+1 (555) 123-4567",
            "Employees": 50,
        },
    )
    engine.add_record(
        "Leads",
        2,
        fields={"Last_Name": "Kate", "Company": "ABC Inc.", "Secondary_Email": "k@abc.example", "Mobile": "555999"},
    )
    engine.add_record("Leads", 3, fields={"Last_Name": "Lone", "Company": "Zylker"}, state="zia_vision_validation")
    engine.add_record("Contacts", 4, fields={"Last_Name": "Boyle"})
    return engine


class TestWhatIsFound:
    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({"criteria": "(Company:equals:zyl)"}, {"1"}),
            ({"criteria": "((Company:equals:ABC) or (Employees:greater_than:49))"}, {"1", "2"}),
            ({"criteria": "(Full_Name:in:Patricia Boyle,Nobody)"}, {"1"}),
            ({"criteria": "(Owner:equals:Patricia Boyle)"}, {"1", "2"}),
            ({"criteria": "(Created_Time:greater_than:2020-01-01)"}, {"1", "2"}),
            ({"criteria": "(id:in:1,4)"}, {"1"}),
            ({"criteria": "(City:equals:Berlin)"}, set()),
            ({"email": "pat.boyle@zylker.example"}, {"1"}),
            ({"email": "@abc"}, {"2"}),
            ({"phone": "555-123"}, {"1"}),
            ({"phone": "+1555"}, {"1"}),
            ({"phone": "555"}, {"1", "2"}),
            ({"word": "zylker"}, {"1"}),
            ({"word": "patricia boyle"}, {"1"}),
            ({"word": "nobody"}, set()),
            ({"criteria": "(Last_Name:equals:Kate)", "word": "boyle"}, {"2"}),
            ({"email": "@abc", "phone": "555-123", "word": "boyle"}, {"2"}),
        ],
    )
    def test_is_what_the_records_hold(self, people: Engine, params: dict[str, str], expected: set[str]) -> None:
        assert found(people, **params) == expected

    def test_approval_and_conversion_filter(self, people: Engine, send: Send) -> None:
        assert found(people, word="zylker", approved="both") == {"1", "3"}
        assert found(people, word="zylker", approved="false") == {"3"}
        assert found(people, word="zylker", approval_state="zia_vision_validation,approved") == {"1", "3"}
        send(people, "POST", "Leads/2/actions/convert", {"data": [{}]})
        assert found(people, word="Kate") == set()
        assert found(people, word="Kate", converted="both") == {"2"}

    def test_a_deleted_record_is_not_found(self, people: Engine, send: Send) -> None:
        send(people, "DELETE", "Leads/1")
        assert found(people, word="boyle") == set()

    def test_fields_pages_and_order_are_as_asked(self, people: Engine) -> None:
        params = {"fields": "Company", "approved": "both", "word": "ly"}
        rows = search(people, **{**params, "word": "zylker"}).json()
        assert rows["data"] == [{"id": "3", "Company": "Zylker"}, {"id": "1", "Company": "Zylker"}]
        assert rows["info"] == {"per_page": 200, "count": 2, "page": 1, "more_records": False}
        by_name = {"criteria": "(Company:not_equal:x)", "sort_by": "Last_Name", "sort_order": "asc"}
        first = search(people, **by_name, per_page=1).json()
        assert [row["id"] for row in first["data"]] == ["1"]
        assert first["info"]["more_records"] is True
        assert [row["id"] for row in search(people, **by_name, per_page=1, page=2).json()["data"]] == ["2"]

    def test_without_fields_all_are_shown(self, people: Engine) -> None:
        assert search(people, word="Kate", fields="").json()["data"][0]["Mobile"] == "555999"


class TestRefusedSearches:
    @pytest.mark.parametrize(
        ("params", "code", "details"),
        [
            ({}, "EXPECTED_PARAM_MISSING", {"param_names": ["criteria", "email", "phone", "word"]}),
            ({"word": ""}, "EXPECTED_PARAM_MISSING", {"param_names": ["criteria", "email", "phone", "word"]}),
            ({"word": "x"}, "INVALID_DATA", {"param_name": "word"}),
            ({"phone": "12"}, "INVALID_QUERY", {"param_name": "phone"}),
            ({"phone": "abc"}, "INVALID_QUERY", {"param_name": "phone"}),
            ({"phone": "---"}, "INVALID_QUERY", {"param_name": "phone"}),
            ({"criteria": "("}, "INVALID_QUERY", {"param_name": "criteria"}),
            ({"word": "abc", "page": "11"}, "LIMIT_REACHED", {"limit": "2000"}),
            ({"word": "abc", "per_page": "201"}, "INVALID_DATA", {"param_name": "per_page", "limit": 200}),
            ({"word": "Kate", "sort_order": "up"}, "PATTERN_NOT_MATCHED", {"param_name": "sort_order"}),
        ],
    )
    def test_are_400(self, people: Engine, params: dict[str, str], code: str, details: dict[str, object]) -> None:
        reply = search(people, **params)
        body = reply.json()
        assert (reply.status, body["code"], body["details"]) == (400, code, details)

    def test_an_operator_is_checked_against_the_values_that_the_field_has(self, people: Engine) -> None:
        body = search(people, criteria="(Company:greater_than:a)").json()
        assert body["code"] == "INVALID_QUERY"
        assert body["details"]["api_name"] == "Company"

    def test_a_search_costs_one_credit(self, people: Engine) -> None:
        search(people, word="boyle")
        assert people.credits_spent == 1


class TestCounts:
    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ("", 2),
            ("approved=both", 3),
            ("word=zylker", 1),
            ("email=@abc", 1),
            ("criteria=(Company:equals:none)", 0),
        ],
    )
    def test_are_of_what_the_list_or_a_search_shows(
        self, people: Engine, send: Send, query: str, count: int
    ) -> None:
        reply = send(people, "GET", f"Leads/actions/count?{query}")
        assert (reply.status, reply.json()) == (200, {"count": count})

    def test_a_custom_view_is_not_simulated(self, people: Engine, send: Send) -> None:
        body = send(people, "GET", "Leads/actions/count?cvid=5").json()
        assert (body["code"], body["details"]) == ("INVALID_DATA", {"param_name": "cvid"})
        assert "not simulated" in body["message"]
        assert "not simulated" in send(people, "GET", "Leads/actions/count?cross_filters={}").json()["message"]

    def test_a_custom_view_beside_a_search_is_ambiguous(self, people: Engine, send: Send) -> None:
        body = send(people, "GET", "Leads/actions/count?cvid=5&word=abc").json()
        assert body["code"] == "AMBIGUITY_DURING_PROCESSING"
        assert body["details"]["ambiguity_due_to"] == [{"param_name": "cvid"}, {"param_name": "word"}]

    def test_they_came_with_version_2_1(self, people: Engine) -> None:
        replies = [
            people.handle(Request(method="GET", path=f"/crm/{version}/Leads/actions/count")).json()
            for version in ("v2", "v2.1")
        ]
        assert replies[0]["details"] == {"supported_version": "v2.1"}
        assert replies[1] == {"count": 2}


def test_the_list_of_records_is_sorted_where_the_query_asks(people: Engine, send: Send) -> None:
    def ids(query: str) -> list[str]:
        return [row["id"] for row in send(people, "GET", f"Leads?fields=id&approved=both{query}").json()["data"]]

    assert ids("") == ["1", "2", "3"]
    people.add_record("Leads", 10)
    assert ids("&sort_order=desc") == ["10", "3", "2", "1"]
    send(people, "DELETE", "Leads/10")
    assert ids("&sort_by=id") == ["3", "2", "1"]
    assert ids("&sort_by=Modified_Time&sort_order=asc") == ["1", "2", "3"]


class TestLimitsOfLists:
    def test_info_tells_the_order_and_that_there_is_no_token(self, people: Engine, send: Send) -> None:
        tokens = dict.fromkeys(("next_page_token", "previous_page_token", "page_token_expiry"))
        page = {"per_page": 1, "count": 1, "page": 1, "more_records": True}
        for query, name, order in [
            ("", "id", "asc"),
            ("&sort_order=desc", "id", "desc"),
            ("&sort_by=Created_Time", "Created_Time", "desc"),
        ]:
            info = send(people, "GET", f"Leads?fields=id&per_page=1{query}").json()["info"]
            assert info == {**page, "sort_by": name, "sort_order": order, **tokens}

    def test_the_order_is_that_of_the_ids_or_as_ids_has_it(self, engine: Engine, send: Send) -> None:
        for number in (5, 10, 3):
            engine.add_record("Leads", number)
        for query, expected in [
            ("", ["3", "5", "10"]),
            ("&ids=10,3,5&sort_order=asc", ["3", "5", "10"]),
            ("&ids=10,3,5", ["10", "3", "5"]),
        ]:
            rows = send(engine, "GET", f"Leads?fields=id{query}").json()["data"]
            assert [row["id"] for row in rows] == expected

    @pytest.mark.parametrize(
        ("fine", "wrong", "code", "details"),
        [
            ("page=10", "page=11", "DISCRETE_PAGINATION_LIMIT_EXCEEDED", {"limit": 2000}),
            (
                "sort_by=Modified_Time",
                "sort_by=Company",
                "INVALID_DATA",
                {"param_name": "sort_by", "supported_values": ["id", "Created_Time", "Modified_Time"]},
            ),
            (
                "fields=" + ",".join(["id"] * 49),
                "fields=" + ",".join(["id"] * 50),
                "LIMIT_EXCEEDED",
                {"limit": 50, "param_name": "fields"},
            ),
        ],
    )
    def test_are_documented(
        self, people: Engine, send: Send, fine: str, wrong: str, code: str, details: dict[str, object]
    ) -> None:
        assert send(people, "GET", f"Leads?fields=id&{fine}").status in (200, 204)
        found = send(people, "GET", f"Leads?fields=id&{wrong}").json()
        assert (found["code"], found["details"]) == (code, details)


class TestUnservedFilters:
    CALLS = ("Leads?", "Leads/search?word=boyle&", "Leads/actions/count?", "Leads/1/Contacts?")

    @pytest.mark.parametrize("path", CALLS)
    @pytest.mark.parametrize(
        "name",
        ["cvid", "filters", "cross_filters", "filterId", "territory_id", "include_child", "page_token"],
    )
    def test_are_refused_and_not_ignored(self, people: Engine, send: Send, path: str, name: str) -> None:
        reply = send(people, "GET", f"{path}fields=id&{name}=5")
        found = reply.json()
        assert (reply.status, found["code"], found["details"]) == (400, "INVALID_DATA", {"param_name": name})
        assert f"not simulated: the parameter {name}" in found["message"]

    @pytest.mark.parametrize("path", CALLS)
    def test_so_is_the_header_that_asks_for_what_changed(self, people: Engine, send: Send, path: str) -> None:
        date = "2099-01-01T00:00:00+00:00"
        reply = send(people, "GET", f"{path}fields=id", **{"If-Modified-Since": date})
        assert (reply.status, "not simulated: the header If-Modified-Since" in reply.json()["message"]) == (
            400,
            True,
        )
