"""What each call does when nothing refuses it, and what it says to bad requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard.simulator import Engine, Request, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]

ROW = {"Company": "Zylker"}
KEYS = [
    "id",
    "data",
    "ids",
    "tags",
    "share",
    "shared_with",
    "owner",
    "name",
    "module",
    "api_name",
    "Email",
    "Last_Name",
]
KEYS += ["convert_to", "__composite_requests", "uri", "method", "body", "headers", "params", "cvid", "Accounts"]
KEYS += ["Territories", "blueprint"]
TERRITORY = ["assign_territories", "remove_territories"]
ACTIONS = ["add_tags", "remove_tags", "share", "change_owner", "convert", "portal_invite", *TERRITORY]
ACTIONS += ["blueprint", "send_mail", "clone"]
MASS = ["add_tags", "remove_tags", "mass_update", "mass_delete", "change_owner", "mass_convert", *TERRITORY]
PATHS = [
    "Leads",
    "Leads/1",
    "Leads/upsert",
    "Leads/1/photo",
    "Leads/1/Locking_Information__s",
    "__composite_requests",
]
PATHS += [f"Leads/1/actions/{action}" for action in ACTIONS] + [f"Leads/actions/{action}" for action in MASS]
PATHS += ["Quotes/2/actions/convert"]
PNG = b"\x89PNG\r\n\x1a\nrest"


def _leads(engine: Engine, count: int, **options: Any) -> list[str]:
    return [engine.add_record("Leads", **options) for _ in range(count)]


def _upload(send: Send, engine: Engine, path: str, name: str, content: bytes, field: str = "file") -> Reply:
    head = f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    raw = head.encode() + content + b"\r\n--xyz--\r\n"
    return send(engine, "POST", path, raw=raw, Content_Type="multipart/form-data; boundary=xyz")


class TestAddresses:
    @pytest.mark.parametrize(
        "path",
        ["/crm/v2/Leads", "/crm/v2.1/Leads", "/crm/org7/v8/Leads", "/crm/a/b/v3/Leads", "/crm/v9/Leads"],
    )
    def test_versions_and_infixes_are_understood(self, engine: Engine, path: str) -> None:
        reply = engine.handle(Request(method="GET", path=path, query="fields=id"))
        assert reply.status == 204

    @pytest.mark.parametrize("path", ["/", "/crm/v8", "/crm/v10/Leads", "/crm/v1/Leads", "/books/v3/x",
        "/crm/v8/__apis", "/crm/v8/Leads/1/nothing", "/crm/v8/Contacts/1/actions/convert"])  # fmt: skip
    def test_unknown_addresses_are_404(self, engine: Engine, path: str) -> None:
        reply = engine.handle(Request(method="GET", path=path))
        assert (reply.status, reply.json()["code"]) == (404, "INVALID_URL_PATTERN")

    def test_unknown_methods_are_400(self, send: Send, engine: Engine) -> None:
        reply = send(engine, "PATCH", "Leads")
        assert (reply.status, reply.json()["code"]) == (400, "INVALID_REQUEST_METHOD")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "1", "Leads", "[]", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]), path=st.sampled_from(PATHS), body=JSON)
def test_no_request_breaks_the_engine(method: str, path: str, body: Any) -> None:
    """Whatever comes in, an answer with an HTTP status goes out, and the log has it."""
    engine = Engine()
    engine.add_record("Leads", "1", fields={"Email": "1"})
    engine.add_record("Quotes", "2")
    for content in (
        body,
        {"data": [body]},
        {"data": [{"id": "1", "convert_to": [body]}], "ids": body, "tags": [body]},
    ):
        raw = json.dumps(content).encode()
        reply = engine.handle(Request(method=method, path=f"/crm/v8/{path}", query="fields=id", body=raw))
        assert 200 <= reply.status < 500
    assert len(engine.calls) == 3


class TestWrites:
    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"'])
    def test_a_body_that_is_no_object_is_refused(self, send: Send, engine: Engine, raw: bytes) -> None:
        reply = send(engine, "PUT", "Leads", raw=raw)
        assert (reply.status, reply.json()["message"]) == (400, "body")

    @pytest.mark.parametrize("body", [{}, {"data": []}, {"data": {}}, {"data": [1]}])
    def test_rows_must_be_an_array_of_objects(self, send: Send, engine: Engine, body: Any) -> None:
        assert send(engine, "PUT", "Leads", body).json()["details"]["api_name"] == "data"

    def test_every_row_gets_its_item_in_order(self, send: Send, engine: Engine) -> None:
        first, second = _leads(engine, 2)
        rows: list[Any] = [{"id": second}, {"id": "1"}, ROW, {"id": first, "Last_Name": 5}, {"id": first}]
        items = send(engine, "PUT", "Leads", {"data": rows}).json()["data"]
        codes = [entry["code"] for entry in items]
        assert codes == ["SUCCESS", "INVALID_DATA", "MANDATORY_NOT_FOUND", "INVALID_DATA", "SUCCESS"]
        assert items[1]["details"]["json_path"] == "$.data[1].id"
        assert engine.write_counts == {first: 1, second: 1}

    def test_external_ids_name_records(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", fields={"Ext": "E/1"})
        header = {"X_EXTERNAL": "Leads.Ext"}
        send(engine, "PUT", "Leads/E%2F1", {"data": [ROW]}, **header)
        send(engine, "PUT", "Leads", {"data": [{"Ext": "E/1"}]}, **header)
        send(engine, "DELETE", "Leads?ids=E/1", **header)
        assert engine.writes(lead) == 3
        assert all(call.record_ids == (lead,) for call in engine.calls)

    def test_create_answers_201_and_wants_its_mandatory_fields(self, send: Send, engine: Engine) -> None:
        assert send(engine, "POST", "Leads", {"data": [{"Last_Name": "Doe"}]}).status == 201
        mixed = send(engine, "POST", "Leads", {"data": [{"Last_Name": "Doe", "Record_Image": "x"}, ROW]})
        assert mixed.status == 207
        assert mixed.json()["data"][1]["code"] == "MANDATORY_NOT_FOUND"
        assert len(engine.records) == 2

    def test_upsert_finds_by_id_or_duplicate_field(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", fields={"Email": "a@x.com", "Last_Name": "Doe"})
        rows = [{"id": lead}, {"Email": "a@x.com"}, {"Last_Name": "Roe", "Email": "b@x.com"}]
        items = send(engine, "POST", "Leads/upsert", {"data": rows}).json()["data"]
        found = [(entry["action"], entry["duplicate_field"]) for entry in items]
        assert found == [("update", "id"), ("update", "Email"), ("insert", None)]
        assert send(engine, "POST", "Leads/upsert", {"data": [{"Last_Name": "New"}]}).status == 200

    @pytest.mark.parametrize(("module", "field"), [
        ("Leads", "Email"), ("Accounts", "Account_Name"), ("Contacts", "Email"), ("Deals", "Deal_Name"),
        ("Campaigns", "Campaign_Name"), ("Cases", "Subject"), ("Solutions", "Solution_Title"),
        ("Products", "Product_Name"), ("Vendors", "Vendor_Name"), ("Price_Books", "Price_Book_Name"),
        ("Quotes", "Subject"), ("Sales_Orders", "Subject"), ("Purchase_Orders", "Subject"), ("Invoices", "Subject"),
        ("PriceBooks", "Price_Book_Name"), ("SalesOrders", "Subject"), ("PurchaseOrders", "Subject"),
        ("Machines", "Name"),
    ])  # fmt: skip
    def test_an_upsert_knows_the_duplicate_field_of_every_module(
        self, send: Send, engine: Engine, module: str, field: str
    ) -> None:
        """zoho/crm-oas: record/upsertRecords, `duplicate_check_fields`."""
        body = {"data": [{field: "A", "Last_Name": "A", "Account_Name": "A"}]}
        done = [send(engine, "POST", f"{module}/upsert", body).json()["data"][0] for _ in range(2)]
        assert [(entry["action"], entry["duplicate_field"]) for entry in done] == [
            ("insert", None),
            ("update", field),
        ]

    @pytest.mark.parametrize(("module", "fields"), [("Tasks", {"Subject": "A", "Name": "A"}),
        ("Appointments__s", {"Name": "A"})])  # fmt: skip
    def test_an_upsert_finds_no_duplicates_where_no_field_tells_them(
        self, send: Send, engine: Engine, module: str, fields: dict[str, str]
    ) -> None:
        for _ in range(2):
            reply = send(engine, "POST", f"{module}/upsert", {"data": [fields]})
            assert reply.json()["data"][0]["action"] == "insert"

    def test_an_upsert_with_an_unknown_id_inserts_nothing(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", fields={"Email": "a@x.com"})
        gone = engine.add_record("Leads")
        send(engine, "DELETE", f"Leads/{gone}")
        rows = [{"id": "999", "Last_Name": "A", "Email": "a@x.com"}, {"id": gone, "Last_Name": "B"}, {"id": lead}]
        reply = send(engine, "POST", "Leads/upsert", {"data": rows})
        *unknown, fine = reply.json()["data"]
        assert (reply.status, fine["action"], list(engine.records)) == (207, "update", [lead])
        for index, entry in enumerate(unknown):
            where = {"api_name": "id", "json_path": f"$.data[{index}].id"}
            assert (entry["code"], entry["message"], entry["details"]) == (
                "INVALID_DATA", "the id given seems to be invalid", where)  # fmt: skip
            assert not entry.keys() & {"action", "duplicate_field"}
        assert engine.calls[-1].record_ids == ("999", gone, lead)

    @pytest.mark.parametrize("separator", [",", "%2C", "%2c", ", "])
    def test_delete_takes_any_comma(self, send: Send, engine: Engine, separator: str) -> None:
        ids = _leads(engine, 2)
        reply = send(engine, "DELETE", f"Leads?ids={separator.join(ids)}&wf_trigger=false")
        assert [entry["details"]["id"] for entry in reply.json()["data"]] == ids
        assert engine.records == {}
        assert engine.get(ids[0]).deleted

    def test_a_second_delete_finds_nothing(self, send: Send, engine: Engine) -> None:
        (lead,) = _leads(engine, 1)
        send(engine, "DELETE", f"Leads/{lead}")
        reply = send(engine, "DELETE", f"Leads/{lead}")
        assert (reply.status, reply.json()["message"]) == (400, "record not deleted")
        assert engine.writes(lead) == 1

    def test_delete_without_ids_misses_a_parameter(self, send: Send, engine: Engine) -> None:
        assert send(engine, "DELETE", "Leads").json()["details"] == {"param_name": "ids"}

    def test_a_record_of_another_module_is_unknown(self, send: Send, engine: Engine) -> None:
        contact = engine.add_record("Contacts")
        assert send(engine, "PUT", f"Leads/{contact}", {"data": [ROW]}).status == 400


IDS = {"tags": [{"name": "x"}], "data": [ROW], "owner": {"id": "1"}}


@pytest.mark.parametrize(("method", "path", "key", "limit"), [
    ("PUT", "Leads", "data", 100), ("POST", "Leads", "data", 100), ("POST", "Leads/upsert", "data", 100),
    ("DELETE", "Leads", "query", 100), ("GET", "Leads", "query", 100),
    ("POST", "Leads/actions/add_tags", "ids", 500),
    ("POST", "Leads/actions/remove_tags", "ids", 500), ("POST", "Leads/actions/mass_update", "ids", 500),
    ("POST", "Leads/actions/mass_delete", "ids", 500), ("POST", "Leads/actions/change_owner", "ids", 500),
    ("POST", "Leads/actions/mass_convert", "ids", 50),
    ("POST", "Leads/actions/assign_territories", "territories", 10),
    ("POST", "Leads/actions/remove_territories", "territories", 10),
])  # fmt: skip
@pytest.mark.parametrize("excess", [0, 1])
def test_limits_are_exact(send: Send, method: str, path: str, key: str, limit: int, excess: int) -> None:
    """The documented number of records passes, one more is an error and does nothing."""
    engine = Engine(mandatory={})
    ids = _leads(engine, limit + excess)
    if key == "query":
        reply = send(engine, method, f"{path}?fields=id&ids={','.join(ids)}")
    elif key == "data":
        reply = send(engine, method, path, {"data": [{"id": entry} for entry in ids]})
    elif key == "territories":
        reply = send(engine, method, path, {"data": [{"id": entry, "Territories": [{"id": "1"}]} for entry in ids]})
    else:
        reply = send(engine, method, path, {**IDS, "ids": ids})
    assert (reply.status < 300) == (not excess)
    if excess:
        said = reply.json()
        found = said["data"][0] if "data" in said else said
        assert found["code"] in ("LIMIT_EXCEEDED", "INVALID_DATA")
        assert limit in (found["details"].get("limit"), found["details"].get("maximum_length"))
        assert engine.write_counts == {}


class TestTags:
    @pytest.mark.parametrize("version", ["v2", "v7", "v8", "v9"])
    def test_counters_depend_on_the_version(self, engine: Engine, version: str) -> None:
        good, locked = engine.add_record("Leads"), engine.add_record("Leads", refusals=1)
        path = f"/crm/{version}/Leads/actions/add_tags"
        reply = engine.handle(Request(method="POST", path=path, query=f"ids={good},{locked}&tag_names=a,b"))
        counters = {key: value for key, value in reply.json().items() if key != "data"}
        assert reply.status == 200
        assert counters == {"locked_count": "1"} | ({} if version in ("v8", "v9") else {"success_count": "1"})

    def test_tags_come_and_go(self, send: Send, engine: Engine) -> None:
        (lead,) = _leads(engine, 1)
        path = f"Leads/{lead}/actions"
        send(engine, "POST", f"{path}/add_tags", {"tags": [{"name": "a"}, {"name": "b"}]})
        send(engine, "POST", f"{path}/remove_tags", {"tags": [{"name": "a"}]})
        assert list(engine.get(lead).tags) == ["b"]
        send(engine, "POST", f"{path}/add_tags", {"tags": [{"name": "c"}], "over_write": True})
        assert list(engine.get(lead).tags) == ["c"]

    def test_a_tag_needs_a_name(self, send: Send, engine: Engine) -> None:
        reply = send(engine, "POST", "Leads/actions/add_tags", {"tags": [{}], "ids": ["1"]})
        assert reply.json()["tags"][0]["details"]["json_path"] == "$.tags[*].name"

    @pytest.mark.parametrize("ids", [None, "x", "[]", [], {}])
    def test_ids_must_be_an_array(self, send: Send, engine: Engine, ids: Any) -> None:
        reply = send(engine, "POST", "Leads/actions/add_tags", {"tags": [{"name": "a"}], "ids": ids})
        assert (reply.status, reply.json()["details"]["api_name"]) == (400, "ids")

    def test_unknown_ids_get_an_item(self, send: Send, engine: Engine) -> None:
        (lead,) = _leads(engine, 1)
        reply = send(engine, "POST", "Leads/actions/add_tags", {"tags": [{"name": "a"}], "ids": ["7", lead]})
        assert [entry["code"] for entry in reply.json()["data"]] == ["INVALID_DATA", "SUCCESS"]


class TestShare:
    def test_sharing_is_listed_changed_and_revoked(self, send: Send, engine: Engine) -> None:
        path = f"Leads/{engine.add_record('Leads')}/actions/share"
        body = {"share": [{"shared_with": {"id": "1", "type": "roles"}, "permission": "read_only"}]}
        assert send(engine, "GET", path).status == 204
        assert send(engine, "PUT", path, body).status == 400
        assert send(engine, "POST", path, body).status == 201
        assert send(engine, "GET", path).json()["share"] == body["share"]
        assert send(engine, "PUT", path, body).status == 201
        assert isinstance(send(engine, "DELETE", path).json()["share"], dict)
        assert send(engine, "DELETE", path).json()["code"] == "CANNOT_PROCESS"
        many = send(engine, "POST", path, {"share": body["share"] * 21}).json()
        assert (many["code"], many["details"]["maximum_length"]) == ("INVALID_DATA", 20)

    @pytest.mark.parametrize(("kind", "limit"), [("users", 10), ("groups", 5), ("roles", 5)])
    def test_a_record_is_shared_with_so_many_of_each_type(
        self, send: Send, engine: Engine, kind: str, limit: int
    ) -> None:
        lead = engine.add_record("Leads")
        entries = [{"shared_with": {"id": str(number), "type": kind}} for number in range(limit + 1)]
        reply = send(engine, "POST", f"Leads/{lead}/actions/share", {"share": entries})
        assert (reply.status, len(engine.get(lead).shares)) == (207, limit)
        assert reply.json()["share"][-1]["message"] == f"Cannot share a record to more than {limit} {kind}"


class TestMassActions:
    def test_mass_delete_answers_out_of_order(self, send: Send, engine: Engine) -> None:
        ids = _leads(engine, 3)
        items = send(engine, "POST", "Leads/actions/mass_delete", {"ids": [*ids, "1"]}).json()["data"]
        assert [entry["details"]["id"] for entry in items] == ["1", *reversed(ids)]

    def test_shuffle_is_random_and_repeatable(self, send: Send) -> None:
        orders = []
        for _ in range(2):
            engine = Engine(shuffle=True, seed=3)
            ids = _leads(engine, 8)
            items = send(engine, "POST", "Leads/actions/mass_update", {"data": ROW, "ids": ids}).json()["data"]
            orders.append([entry["details"]["id"] for entry in items])
        assert orders[0] == orders[1] != ids
        assert sorted(orders[0]) == ids

    @pytest.mark.parametrize("action", ["mass_update", "mass_delete"])
    def test_jobs_change_nothing(self, send: Send, engine: Engine, action: str) -> None:
        (lead,) = _leads(engine, 1)
        reply = send(engine, "POST", f"Leads/actions/{action}", {"data": [ROW], "cvid": "1"})
        assert "job_id" in reply.json()["data"][0]["details"]
        assert engine.writes(lead) == 0

    def test_a_number_in_a_text_field_is_refused_per_record(self, send: Send, engine: Engine) -> None:
        (lead,) = _leads(engine, 1)
        body = {"data": [{"Company": 5}], "ids": [lead]}
        assert send(engine, "POST", "Leads/actions/mass_update", body).status == 400

    @pytest.mark.parametrize(("caller", "status"), [("direct", 202), ("sdk", 207)])
    def test_a_partly_done_owner_change_depends_on_the_caller(self, send: Send, caller: Any, status: int) -> None:
        engine = Engine(caller=caller)
        ids = [*_leads(engine, 1), *_leads(engine, 1, refusals=1)]
        body = {"owner": {"id": "9"}, "ids": ids}
        assert send(engine, "POST", "Leads/actions/change_owner", body).status == status
        assert engine.get(ids[0]).owner == {"id": "9"}

    def test_a_fault_can_tell_of_a_record_that_was_not_merged(self, send: Send, engine: Engine) -> None:
        """The call is applied: the record under merge refuses it, the other one is given away."""
        good, merging = _leads(engine, 1)[0], _leads(engine, 1, state="merge_pending")[0]
        done = {"code": "SUCCESS", "details": {"id": good}, "message": "record owner updated", "status": "success"}
        kept = {"code": "NOT_MERGED", "details": {"id": merging}, "message": "not merged", "status": "error"}
        engine.fault("answer", path="change_owner", status=202, body={"data": [done, kept]}, applied=True)
        body = {"owner": {"id": "9"}, "ids": [good, merging]}
        reply = send(engine, "POST", "Leads/actions/change_owner", body)
        assert (reply.status, reply.json()) == (202, {"data": [done, kept]})
        assert engine.write_counts == {good: 1}

    @pytest.mark.parametrize("body", [{}, {"owner": "x"}, {"owner": {}}])
    def test_an_owner_is_needed(self, send: Send, engine: Engine, body: Any) -> None:
        assert send(engine, "POST", "Leads/1/actions/change_owner", body).json()["details"]["api_name"] == "owner"

    @pytest.mark.parametrize("path", ["Leads/actions/change_owner", "__composite_requests"])
    def test_version_2_lacks_some_calls(self, engine: Engine, path: str) -> None:
        reply = engine.handle(Request(method="POST", path=f"/crm/v2/{path}", body=b"{}"))
        assert reply.json()["code"] == "API_NOT_SUPPORTED"


class TestSingleRecordActions:
    def test_a_clone_is_a_new_record_with_some_fields_changed(self, send: Send, engine: Engine, clock: Any) -> None:
        """It counts as a write to the original, which stays as it was."""
        lead = engine.add_record("Leads", fields={"Last_Name": "Doe", "Company": "Zylker", "Seats": [1]})
        clock.advance(9.0)
        reply = send(engine, "POST", f"Leads/{lead}/actions/clone", {"data": [{"id": lead, "Company": "Other"}]})
        (found,) = reply.json()["data"]
        assert (reply.status, found["message"]) == (201, "record added")
        assert engine.get(found["details"]["id"]).fields == {"Last_Name": "Doe", "Company": "Other", "Seats": [1]}
        original = engine.get(lead)
        assert (original.fields["Company"], original.modified) == ("Zylker", original.created)
        assert engine.write_counts == {lead: 1}

    def test_a_clone_with_a_bad_value_is_refused(self, send: Send, engine: Engine) -> None:
        (lead,) = _leads(engine, 1)
        reply = send(engine, "POST", f"Leads/{lead}/actions/clone", {"data": [{"Company": 5}]})
        assert (reply.status, reply.json()["data"][0]["code"]) == (400, "INVALID_DATA")
        assert list(engine.records) == [lead]

    @pytest.mark.parametrize(("data", "company"), [({"Company": "Zylker"}, "Zylker"), (None, None)])
    def test_a_transition_sets_its_fields_and_answers_with_a_bare_item(
        self, send: Send, engine: Engine, data: Any, company: str | None
    ) -> None:
        (lead,) = _leads(engine, 1)
        body = {"blueprint": [{"transition_id": "1", "data": data}]}
        reply = send(engine, "PUT", f"Leads/{lead}/actions/blueprint", body)
        assert (reply.status, reply.json()["code"], reply.json()["details"]) == (200, "SUCCESS", {})
        assert (engine.get(lead).fields.get("Company"), engine.writes(lead)) == (company, 1)

    def test_a_mail_has_an_id_and_changes_nothing(self, send: Send, engine: Engine, clock: Any) -> None:
        (lead,) = _leads(engine, 1)
        clock.advance(9.0)
        reply = send(engine, "POST", f"Leads/{lead}/actions/send_mail", {"data": [{"subject": "Hello"}]})
        assert reply.json()["data"][0]["details"]["message_id"]
        assert (engine.writes(lead), engine.get(lead).modified) == (1, engine.get(lead).created)

    @pytest.mark.parametrize(("method", "action", "field"), [("PUT", "blueprint", "blueprint"),
        ("POST", "send_mail", "data"), ("POST", "assign_territories", "data")])  # fmt: skip
    def test_a_body_is_needed(self, send: Send, engine: Engine, method: str, action: str, field: str) -> None:
        (lead,) = _leads(engine, 1)
        reply = send(engine, method, f"Leads/{lead}/actions/{action}", {})
        found = reply.json()["data"][0] if action == "send_mail" else reply.json()
        assert (reply.status, found["details"]["api_name"]) == (400, field)
        assert engine.writes(lead) == 0


class TestConversion:
    def test_a_lead_becomes_a_contact_and_an_account(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", fields={"Last_Name": "Doe", "Company": "Zylker"})
        body = {"data": [{"Accounts": {"id": "77"}, "Deals": {"Deal_Name": "Big"}}]}
        details = send(engine, "POST", f"Leads/{lead}/actions/convert", body).json()["data"][0]["details"]
        assert details["Accounts"]["id"] == "77"
        assert engine.get(details["Contacts"]["id"]).fields == {"Last_Name": "Doe"}
        assert engine.get(details["Deals"]["id"]).module == "Deals"
        again = send(engine, "POST", f"Leads/{lead}/actions/convert", body)
        assert again.json()["code"] == "ID_ALREADY_CONVERTED"
        late = send(engine, "PUT", f"Leads/{lead}", {"data": [ROW]})
        assert late.json()["data"][0]["code"] == "CONVERTED_RECORD"
        assert engine.writes(lead) == 1

    def test_a_mass_conversion_skips_locked_leads_silently(self, send: Send, engine: Engine) -> None:
        ids = [*_leads(engine, 1), *_leads(engine, 1, refusals=1)]
        assert send(engine, "POST", "Leads/actions/mass_convert", {"ids": ids}).status == 202
        assert [engine.writes(entry) for entry in ids] == [1, 0]

    def test_a_mass_conversion_makes_the_deal_that_it_names(self, send: Send, engine: Engine) -> None:
        (lead,) = _leads(engine, 1)
        body = {"ids": [lead], "Deals": {"Deal_Name": "Big"}}
        assert send(engine, "POST", "Leads/actions/mass_convert", body).status == 202
        made = [record.fields for record in engine.records.values() if record.module == "Deals"]
        assert made == [{"Deal_Name": "Big"}]

    def test_a_quote_becomes_a_sales_order(self, send: Send, engine: Engine) -> None:
        quote = engine.add_record("Quotes")
        body = {"data": [{"convert_to": [{"module": {"api_name": "Sales_Orders", "id": "1"}}]}]}
        reply = send(engine, "POST", f"Quotes/{quote}/actions/convert", body)
        order = reply.json()["data"][0]["details"]["Sales_Orders"]["id"]
        assert engine.get(order).module == "Sales_Orders"
        assert send(engine, "POST", f"Quotes/{quote}/actions/convert", {"data": [{}]}).status == 400


class TestPhotos:
    def test_a_photo_is_stored_served_and_deleted(self, send: Send, engine: Engine) -> None:
        path = f"Leads/{engine.add_record('Leads')}/photo"
        assert send(engine, "GET", path).status == 204
        assert _upload(send, engine, path, "a.bin", PNG).status == 200
        reply = send(engine, "GET", path)
        assert (reply.body, reply.headers["Content-Type"]) == (PNG, "image/png")
        assert send(engine, "DELETE", path).json()["message"] == "Photo deleted successfully"
        assert send(engine, "GET", path).status == 204

    def test_an_upload_starts_a_check(self, send: Send, clock: Any) -> None:
        engine = Engine(clock=clock, validation_seconds=3.0)
        lead = engine.add_record("Leads")
        _upload(send, engine, f"Leads/{lead}/photo", "a.png", PNG)
        assert engine.get(lead).state is State.ZIA_VISION_VALIDATION
        assert send(engine, "GET", f"Leads/{lead}/photo").status == 400

    @pytest.mark.parametrize(("version", "status"), [("v7", 415), ("v8", 413), ("v9", 413)])
    def test_a_large_file_is_refused_as_the_version_has_it(self, version: str, status: int) -> None:
        engine = Engine()
        path = f"/crm/{version}/Leads/{engine.add_record('Leads')}/photo"
        raw = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        raw += b"0" * (10 * 1024 * 1024 + 1) + b"\r\n--x--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=x"}
        assert engine.handle(Request(method="POST", path=path, headers=headers, body=raw)).status == status

    def test_bad_uploads_are_refused(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads")
        assert _upload(send, engine, f"Leads/{lead}/photo", "a.txt", b"text").status == 415
        assert _upload(send, engine, f"Leads/{lead}/photo", "a.png", PNG, "other").status == 400
        assert send(engine, "POST", f"Leads/{lead}/photo", raw=PNG).status == 400
        assert engine.writes(lead) == 0

    def test_some_modules_have_no_photos(self, send: Send, engine: Engine) -> None:
        deal, task = engine.add_record("Deals"), engine.add_record("Tasks")
        assert send(engine, "GET", f"Deals/{deal}/photo").json()["code"] == "INVALID_MODULE"
        assert _upload(send, engine, f"Deals/{deal}/photo", "a.png", PNG).status == 200
        assert _upload(send, engine, f"Tasks/{task}/photo", "a.png", PNG).status == 400


class TestReads:
    FIELDS = (
        "id,$approval_state,$approved,$approval,$review_process,$in_merge,Locked__s,$locked_for_me,$zia_visions,No"
    )

    def test_unapproved_records_are_listed_on_request(self, send: Send, engine: Engine) -> None:
        good, waiting = _leads(engine, 1)[0], _leads(engine, 1, state="zia_vision_pending")[0]
        listed = {}
        for approved in ("", "&approved=both", "&approved=false", "&approved=true"):
            rows = send(engine, "GET", f"Leads?fields=id{approved}").json()["data"]
            listed[approved] = [row["id"] for row in rows]
        assert list(listed.values()) == [[good], [good, waiting], [waiting], [good]]

    @pytest.mark.parametrize(("state", "shown"), [(s, s.approval_state) for s in State])
    def test_the_state_of_every_record_can_be_read(
        self, send: Send, engine: Engine, state: State, shown: str
    ) -> None:
        lead = engine.add_record("Leads", state=state)
        (row,) = send(engine, "GET", f"Leads?ids={lead}&approved=both&fields={self.FIELDS}").json()["data"]
        assert row.keys() == set(self.FIELDS.split(",")) - {"No"}
        assert row["$approval_state"] == shown
        assert row["$in_merge"] == (state == "merge_pending")
        assert row["Locked__s"] is row["$locked_for_me"] is (state == "record_locking")
        assert row["$approved"] == (shown in ("approved", "merge_pending"))

    def test_pages(self, send: Send, engine: Engine) -> None:
        _leads(engine, 5)
        info = send(engine, "GET", "Leads?fields=id&page=2&per_page=2").json()["info"]
        assert info.items() >= {"per_page": 2, "count": 2, "page": 2, "more_records": True}.items()
        for bad in ("per_page=201", "page=0", "page=x"):
            assert send(engine, "GET", f"Leads?fields=id&{bad}").status == 400

    def test_fields_are_mandatory_from_version_7(self, engine: Engine) -> None:
        engine.add_record("Leads", fields={"Company": "Zylker"})
        statuses = [engine.handle(Request(method="GET", path=f"/crm/v{v}/Leads")).status for v in (2, 6, 7, 8, 9)]
        assert statuses == [200, 200, 400, 400, 400]

    def test_one_record_is_read_whatever_its_state(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", state="zia_vision_validation", fields={"Company": "Zylker"})
        row = send(engine, "GET", f"Leads/{lead}").json()["data"][0]
        assert (row["Company"], row["$approval_state"]) == ("Zylker", "zia_vision_validation")
        assert send(engine, "GET", "Leads/5").status == 204


class TestComposite:
    @staticmethod
    def _subs(*ids: str, **flags: Any) -> dict[str, Any]:
        subs = [{"method": "PUT", "uri": f"/crm/v8/Leads/{entry}", "body": {"data": [ROW]}} for entry in ids]
        return {"__composite_requests": subs, **flags}

    def test_subs_are_answered_by_index(self, send: Send, engine: Engine) -> None:
        good, locked = _leads(engine, 1)[0], _leads(engine, 1, refusals=1)[0]
        reply = send(engine, "POST", "__composite_requests", self._subs(good, locked))
        found = [entry["details"]["response"]["status_code"] for entry in reply.json()["__composite_requests"]]
        assert (reply.status, found) == (200, [200, 400])
        assert engine.calls[-1].refused_ids == (locked,)

    def test_a_failure_rolls_back(self, send: Send, engine: Engine) -> None:
        """But the refusal still counts towards the end of the lock."""
        good, locked, last = _leads(engine, 1)[0], _leads(engine, 1, refusals=1)[0], _leads(engine, 1)[0]
        body = self._subs(good, locked, last, rollback_on_fail=True)
        reply = send(engine, "POST", "__composite_requests", body)
        codes = [entry["code"] for entry in reply.json()["__composite_requests"]]
        assert (reply.status, codes) == (207, ["ROLLBACK_PERFORMED", "SUCCESS", "PROCESSING_STOPPED"])
        assert engine.write_counts == {}
        assert send(engine, "POST", "__composite_requests", body).status == 200
        assert [call.credits for call in engine.calls] == [1, 2]

    @pytest.mark.parametrize("sub", [
        {"method": "GET", "uri": "/crm/v8/Leads/1/photo"}, {"method": "PUT"}, {"method": "GET", "uri": "/x"},
        {"method": "PUT", "uri": "/crm/v8/Leads", "body": {"data": [{"id": "1"}, {"id": "2"}]}},
    ])  # fmt: skip
    def test_bad_subs_stop_everything(self, send: Send, engine: Engine, sub: Any) -> None:
        good = _leads(engine, 1)[0]
        body = self._subs(good)
        body["__composite_requests"].append(sub)
        assert send(engine, "POST", "__composite_requests", body).status in (400, 404)
        assert engine.writes(good) == 0

    def test_params_and_versions(self, send: Send, engine: Engine) -> None:
        (lead,) = _leads(engine, 1)
        read = {"method": "GET", "uri": "/crm/v8/Leads", "params": {"ids": lead, "fields": "id"}}
        reply = send(engine, "POST", "__composite_requests", {"__composite_requests": [read]})
        assert reply.json()["__composite_requests"][0]["details"]["response"]["status_code"] == 200
        assert send(engine, "POST", "__composite_requests", {"__composite_requests": [read] * 6}).status == 400
        old = Request(method="POST", path="/crm/v7/__composite_requests",
                      body=b'{"__composite_requests":[{"method":"GET","uri":"/crm/v8/Leads/1"}]}')  # fmt: skip
        (found,) = engine.handle(old).json()["__composite_requests"]
        assert (found["code"], found["details"]) == (
            "NOT_SUPPORTED", {"sub_request_version": 8, "composite_request_version": 7})  # fmt: skip
