"""What the simulator serves, and that of everything else it says that it is not simulated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crm_guard.simulator import Engine, Request, ServedCall, served_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .conftest import Send

DOCUMENTED = [
    line.split()
    for line in Path(__file__).with_name("documented_calls.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
# Modules that the documentation treats by name, and that are modules like others here.
MODULES = "Notes|Appointments__s|Appointments_Rescheduled_History__s|Services__s"


def shape(path: str) -> str:
    """Return a path without the names of its variable parts."""
    return re.sub(r"\{\w+\}", "{}", path)


def shapes(path: str) -> set[str]:
    """Return under which shapes the simulator may list a documented path."""
    exact = shape(path)
    general = re.sub(rf"^/crm/v8/({MODULES})(?=/|$)", "/crm/v8/{}", exact)
    return {exact, general, re.sub("^/crm/v8/{}/{}/Notes", "/crm/v8/{}/{}/{}", general)}


def concrete(path: str) -> str:
    """Return a path to something that is there, if anything is served under it."""
    path = re.sub(r"\{related_list\w*\}", "Deals", path)
    path = re.sub(r"\{module(_name|name|_api_name)?\}", "Contacts", path)
    return re.sub(r"\{\w+\}", "1", path)


def populated() -> Engine:
    """Return a CRM with records that would be shown, were a path taken for what it is not."""
    engine = Engine()
    modules = ("Contacts", "Leads", "Deals", "Emails", "Attachments", "Contact_Roles", "Entity_Scores__s", "files")
    for number, module in enumerate(modules, start=1):
        engine.add_record(module, number)
        engine.add_record(module, 10 + number, fields={"Parent_Id": {"id": "1"}, "Deal": {"id": "3"}})
    return engine


def served() -> set[tuple[str, str]]:
    return {(call.method, shape(call.path.replace("{version}", "v8"))) for call in served_calls()}


class TestDocumentedCalls:
    def test_each_is_either_listed_as_served_and_handled_or_said_to_be_not_simulated(self) -> None:
        wrong, listed = [], served()
        for method, path in DOCUMENTED:
            engine = populated()
            before = engine.records
            reply = engine.handle(Request(method=method, path=concrete(path), body=b"{}"))
            refused = b"not simulated" in reply.body
            if any((method, found) in listed for found in shapes(path)) == refused:
                wrong.append((method, path, reply.status))
            if refused and (reply.status not in (400, 404) or engine.records != before):
                wrong.append((method, path, reply.status))
        assert wrong == []

    def test_the_list_holds_what_programs_call(self) -> None:
        calls = {(method, path) for method, path in DOCUMENTED}
        assert len(calls) == len(DOCUMENTED) > 400
        assert ("GET", "/crm/v8/settings/layouts") in calls

    def test_all_that_is_served_is_documented_but_for_the_token(self) -> None:
        documented = {(method, found) for method, path in DOCUMENTED for found in shapes(path)}
        undocumented = {call for call in served() if call not in documented}
        expected = {
            ("POST", "/oauth/v2/token"),
            # The documentation has them for all modules at once.
            ("POST", "/crm/v8/Quotes/{}/actions/convert"),
            ("POST", "/crm/v8/Sales_Orders/{}/actions/convert"),
        }
        assert undocumented == expected

    def test_served_calls_print_as_a_table(self) -> None:
        calls = served_calls()
        assert str(ServedCall("GET", "/crm/{version}/{module}/search")) == "GET    /crm/{version}/{module}/search"
        assert ServedCall("POST", "/crm/{version}/coql") in calls
        assert len(set(calls)) == len(calls)


def answer(engine: Engine, method: str, path: str) -> tuple[int, str, str]:
    reply = engine.handle(Request(method=method, path=path, query="secret=1", body=b'{"data":[{"Last_Name":"x"}]}'))
    found = reply.json()
    return reply.status, found["code"], found["message"]


class TestUnservedAddresses:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            *(("GET", f"settings/{name}") for name in ("layouts", "roles", "variables", "custom_views", "tags")),
            *(("POST", name) for name in ("files", "read", "write", "upload", "functions", "signals")),
            *(("GET", f"org/{name}") for name in ("currencies", "taxes", "photo")),
            *(("GET", f"Contacts/1/{name}") for name in ("Emails", "Attachments", "__timeline", "Unheard_Of")),
            *(("GET", f"Leads/{name}") for name in ("deleted", "deleted/1/Notes", "actions", "actions/nothing")),
            ("POST", "Leads/bulk/search"),
            ("GET", "Contacts/roles"),
            ("PUT", "Contacts/roles/1"),
            ("GET", "Deals/3/Contact_Roles"),
            ("PATCH", "actions/watch"),
            *(("GET", name) for name in ("layouts", "roles", "custom_views", "currencies", "taxes", "my_jobs")),
            *(("POST", name) for name in ("emails", "zia", "nonsense", "leads")),
            ("GET", "automation/tasks"),
            ("GET", "leads/2"),
        ],
    )
    def test_get_zohos_answer_to_an_unknown_url_with_a_word_more(self, method: str, path: str) -> None:
        engine = populated()
        text = f"Please check if the URL trying to access is a correct one; not simulated: {method} /crm/v8/{path}"
        assert answer(engine, method, f"/crm/v8/{path}") == (404, "INVALID_URL_PATTERN", text)
        assert len(engine.records) == 16

    @pytest.mark.parametrize("path", ["/crm/bulk/v8/read", "/crm/email/v8/settings/compose", "/crm/org7/bulk/v8/x"])
    def test_so_do_the_other_services_beside_crm(self, path: str) -> None:
        assert answer(Engine(), "POST", path)[:2] == (404, "INVALID_URL_PATTERN")

    def test_a_long_path_is_cut_in_the_answer(self) -> None:
        _, _, message = answer(Engine(), "GET", "/crm/v8/settings/" + "x" * 5000)
        assert len(message) < 300


class TestUnservedMethods:
    TEXT = "The http request method type is not a valid one"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "settings/modules"),
            ("PATCH", "settings/fields/1"),
            ("PUT", "users/1"),
            ("POST", "Contacts/1/Notes"),
            ("GET", "Leads/actions/mass_update"),
            ("GET", "Contacts/1/actions/blueprint"),
            ("OPTIONS", "Leads"),
            ("HEAD", "Leads"),
        ],
    )
    def test_what_zoho_may_know_is_not_simulated(self, method: str, path: str) -> None:
        expected = (400, "INVALID_REQUEST_METHOD", f"{self.TEXT}; not simulated: {method} /crm/v8/{path}")
        assert answer(populated(), method, f"/crm/v8/{path}") == expected

    @pytest.mark.parametrize(("method", "path"), [("PATCH", "Leads"), ("GET", "coql"), ("POST", "Leads/search"),
        ("DELETE", "org"), ("PUT", "Contacts/1/photo"), ("GET", "Contacts/1/actions/add_tags")])  # fmt: skip
    def test_what_zoho_does_not_know_gets_its_own_text(self, method: str, path: str) -> None:
        expected = (400, "INVALID_REQUEST_METHOD", self.TEXT)
        assert answer(populated(), method, f"/crm/v8/{path}") == expected


class TestModules:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            *(
                ("GET", f"Nope{rest}")
                for rest in ("", "/1", "/search", "/actions/count", "/1/Contacts", "/1/photo")
            ),
            *(("PUT", path) for path in ("Nope", "Nope/1")),
            ("DELETE", "Nope/1"),
            ("POST", "Nope/actions/add_tags"),
        ],
    )
    def test_a_name_that_is_none_is_refused(self, send: Send, method: str, path: str) -> None:
        engine = populated()
        reply = send(engine, method, f"{path}?fields=id&word=abc", {"data": [{"Last_Name": "x"}]})
        found = reply.json()
        assert (reply.status, found["code"], found["details"]) == (
            400,
            "INVALID_MODULE",
            {"resource_path_index": 0},
        )
        assert "known are the usual modules, and those that have a record" in found["message"]
        assert len(engine.records) == 16

    def test_so_is_one_in_a_query(self, send: Send) -> None:
        for name in ("Nope", "leads"):
            query = {"select_query": f"select id from {name} where id is not null"}  # noqa: S608
            reply = send(populated(), "POST", "coql", query)
            assert (reply.status, reply.json()["code"], reply.json()["details"]) == (400, "INVALID_MODULE", {})
            assert reply.json()["message"].startswith("the given module is not supported in api")

    @pytest.mark.parametrize("path", ["Cars", "Cars/upsert"])
    def test_a_custom_module_comes_to_be_with_its_first_record_and_stays(self, send: Send, path: str) -> None:
        engine = Engine()
        created = send(engine, "POST", path, {"data": [{"Name": "x"}]})
        assert created.status in (200, 201)
        key = created.json()["data"][0]["details"]["id"]
        assert send(engine, "GET", "Cars?fields=id").json()["data"] == [{"id": key}]
        send(engine, "DELETE", f"Cars/{key}")
        assert send(engine, "GET", "Cars?fields=id").status == 204

    def test_a_usual_module_needs_no_record(self, send: Send) -> None:
        query = {"select_query": "select id from Vendors where id is not null"}
        assert send(Engine(), "GET", "Vendors?fields=id").status == 204
        assert send(Engine(), "POST", "coql", query).status == 204


class TestVersions:
    @pytest.mark.parametrize(
        "path",
        [
            *("Leads?fields=id", "Leads/2", "Leads/search?word=ab", "Leads/actions/count"),
            *("settings/modules", "settings/layouts", "users?type=CurrentUser", "Leads/2/Contacts?fields=id"),
        ],
    )
    def test_9_is_served_like_8(self, path: str) -> None:
        path, _, query = path.partition("?")
        replies = [
            populated().handle(Request(method="GET", path=f"/crm/{version}/{path}", query=query))
            for version in ("v8", "v9")
        ]
        assert replies[0].status == replies[1].status
        assert replies[0].body.replace(b"/v8/", b"/v9/") == replies[1].body

    @pytest.mark.parametrize(("version", "status"), [("v2", 204), ("v2.1", 204), ("v9", 204), ("v9.9", 204),
        ("v1", 404), ("v1.9", 404), ("v10", 404), ("v80", 404), ("v" + "9" * 400, 404)])  # fmt: skip
    def test_from_2_to_9_are_served(self, version: str, status: int) -> None:
        reply = Engine().handle(Request(method="GET", path=f"/crm/{version}/Leads", query="fields=id"))
        assert reply.status == status


def test_a_missing_scope_counts_for_the_module_that_a_query_or_a_related_list_is_about(send: Send) -> None:
    engine = populated()
    engine.deny_scope(None, "Contacts", "READ")
    query = {"select_query": "select id from Contacts where id is not null"}
    asked: Sequence[int] = [
        send(engine, "POST", "coql", query).status,
        send(engine, "GET", "Leads/2/Contacts?fields=id").status,
        send(engine, "POST", "coql", {"select_query": "select id from Leads where id is not null"}).status,
        send(engine, "POST", "coql", {"select_query": 5}).status,
    ]
    assert asked == [401, 401, 200, 400]
