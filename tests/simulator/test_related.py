"""Notes and other records that belong to a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crm_guard.simulator import Engine, Request

if TYPE_CHECKING:
    from .conftest import Send


@pytest.fixture
def crm(engine: Engine) -> Engine:
    engine.add_record("Accounts", 1, fields={"Account_Name": "Zylker"})
    engine.add_record("Accounts", 2, fields={"Parent_Account": {"id": "1", "name": "Zylker"}})
    for number in (3, 4):
        engine.add_record("Contacts", number, fields={"Last_Name": "x", "Account_Name": {"id": "1"}})
    engine.add_record("Contacts", 5, fields={"Account_Name": {"id": "2"}})
    engine.add_record("Notes", 6, fields={"Note_Title": "a", "Parent_Id": {"id": "1", "name": "Zylker"}})
    engine.add_record("Notes", 7, fields={"Note_Title": "b", "Parent_Id": "1", "Other": {"id": "2"}})
    return engine


def ids(engine: Engine, send: Send, path: str) -> list[str]:
    reply = send(engine, "GET", path)
    return [row["id"] for row in reply.json()["data"]] if reply.status == 200 else []


class TestRelatedLists:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("Accounts/1/Contacts", "43"),
            ("Accounts/2/Contacts", "5"),
            ("Accounts/1/Accounts", "2"),
            ("Accounts/1/Notes", "76"),
            ("Accounts/2/Notes", ""),  # a note has one parent
            ("Contacts/3/Deals", ""),
        ],
    )
    def test_hold_the_records_with_a_lookup_to_this_one(
        self, crm: Engine, send: Send, path: str, expected: str
    ) -> None:
        assert ids(crm, send, f"{path}?fields=id") == list(expected)

    def test_show_fields_and_pages_as_asked(self, crm: Engine, send: Send) -> None:
        body = send(crm, "GET", "Accounts/1/Contacts?fields=Last_Name&per_page=1&sort_order=asc").json()
        assert body == {
            "data": [{"id": "3", "Last_Name": "x"}],
            "info": {"per_page": 1, "count": 1, "page": 1, "more_records": True},
        }

    def test_an_empty_one_is_204(self, crm: Engine, send: Send) -> None:
        assert send(crm, "GET", "Contacts/3/Deals?fields=id").status == 204

    def test_only_approved_records_are_listed_unless_asked(self, crm: Engine, send: Send) -> None:
        crm.set_state("3", "zia_vision_validation")
        assert ids(crm, send, "Accounts/1/Contacts?fields=id") == ["4"]
        assert ids(crm, send, "Accounts/1/Contacts?fields=id&approved=both") == ["4", "3"]

    def test_deleted_records_are_in_none(self, crm: Engine, send: Send) -> None:
        send(crm, "DELETE", "Contacts/3")
        assert ids(crm, send, "Accounts/1/Contacts?fields=id") == ["4"]

    def test_a_list_that_no_module_gives_is_not_simulated(self, crm: Engine, send: Send) -> None:
        reply = send(crm, "GET", "Accounts/1/Child_Accounts?fields=id")
        assert (reply.status, reply.json()["code"]) == (404, "INVALID_URL_PATTERN")
        assert "not simulated: GET /crm/v8/Accounts/1/Child_Accounts" in reply.json()["message"]

    def test_of_no_record_there_is_none(self, crm: Engine, send: Send) -> None:
        body = send(crm, "GET", "Accounts/77/Contacts?fields=id").json()
        assert (body["code"], body["details"]) == ("INVALID_DATA", {"resource_path_index": 1})

    def test_fields_are_mandatory_from_version_7_on(self, crm: Engine) -> None:
        replies = [
            crm.handle(Request(method="GET", path=f"/crm/{version}/Accounts/1/Contacts"))
            for version in ("v6", "v7")
        ]
        assert replies[0].status == 200
        assert replies[1].json()["details"] == {"param_name": "fields"}

    def test_a_record_can_be_named_by_an_external_value(self, crm: Engine, send: Send) -> None:
        crm.add_record("Accounts", 8, fields={"Key": "k-1"})
        crm.add_record("Deals", 9, fields={"Account": {"id": "8"}})
        reply = send(crm, "GET", "Accounts/k-1/Deals?fields=id", X_EXTERNAL="Accounts.Key")
        assert [row["id"] for row in reply.json()["data"]] == ["9"]


class TestOneRelatedRecord:
    def test_is_shown_where_it_is_in_the_list(self, crm: Engine, send: Send) -> None:
        assert send(crm, "GET", "Accounts/1/Notes/6?fields=Note_Title").json() == {
            "data": [{"id": "6", "Note_Title": "a"}]
        }
        assert crm.calls[-1].record_ids == ("1", "6")

    def test_elsewhere_there_is_no_such_record(self, crm: Engine, send: Send) -> None:
        reply = send(crm, "GET", "Accounts/2/Notes/6?fields=Note_Title")
        assert (reply.status, reply.json()["message"]) == (404, "The record does not exist")


def test_the_related_lists_of_a_module_are_its_notes_and_what_belongs_to_its_records(
    crm: Engine, send: Send
) -> None:
    def names(module: str) -> list[str]:
        lists = send(crm, "GET", f"settings/related_lists?module={module}").json()["related_lists"]
        assert all(entry["module"]["api_name"] == entry["api_name"] for entry in lists)
        return [entry["api_name"] for entry in lists]

    assert names("Accounts") == ["Notes", "Accounts", "Contacts"]
    assert names("Deals") == ["Notes"]
    assert send(crm, "GET", "settings/related_lists").json()["code"] == "REQUIRED_PARAM_MISSING"


def test_notes_are_listed_like_any_records(crm: Engine, send: Send) -> None:
    assert ids(crm, send, "Notes?fields=Note_Title") == ["6", "7"]
