"""Which state refuses which call, in which code and envelope: tables written from the documentation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, Simulator, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]

ROW = {"Company": "Zylker"}
TAGS = {"tags": [{"name": "hot"}]}
OWNER = {"owner": {"id": "5725767000000291001"}}
TERRITORIES = {"Territories": [{"id": "554023000000430409"}]}
SHARE = {"share": [{"shared_with": {"id": "111111000000000874", "type": "roles"}}]}
BOUNDARY = "multipart/form-data; boundary=xyz"
FILE = (
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n--\r\nx\r\n--xyz--\r\n"
)

CALLS: dict[str, tuple[str, str, Any]] = {
    "update": ("PUT", "Leads", {"data": [{"id": "ID", **ROW}]}),
    "update_one": ("PUT", "Leads/{}", {"data": [ROW]}),
    "upsert": ("POST", "Leads/upsert", {"data": [{"id": "ID", **ROW}]}),
    "delete": ("DELETE", "Leads?ids={}", None),
    "delete_one": ("DELETE", "Leads/{}", None),
    "add_tags": ("POST", "Leads/actions/add_tags", {**TAGS, "ids": ["ID"]}),
    "remove_tags": ("POST", "Leads/actions/remove_tags", {**TAGS, "ids": '["ID"]'}),
    "add_tags_one": ("POST", "Leads/{}/actions/add_tags", TAGS),
    "remove_tags_one": ("POST", "Leads/{}/actions/remove_tags", TAGS),
    "share": ("POST", "Leads/{}/actions/share", {"share": [{"shared_with": {"id": "2"}}]}),
    "share_revoke": ("DELETE", "Leads/{}/actions/share", None),
    "mass_update": ("POST", "Leads/actions/mass_update", {"data": [ROW], "ids": ["ID"]}),
    "mass_delete": ("POST", "Leads/actions/mass_delete", {"ids": ["ID"]}),
    "change_owner": ("POST", "Leads/actions/change_owner", {**OWNER, "ids": ["ID"]}),
    "change_owner_one": ("POST", "Leads/{}/actions/change_owner", OWNER),
    "convert": ("POST", "Leads/{}/actions/convert", {"data": [{}]}),
    "photo_get": ("GET", "Leads/{}/photo", None),
    "photo_post": ("POST", "Leads/{}/photo", FILE),
    "photo_delete": ("DELETE", "Leads/{}/photo", None),
    "options": ("GET", "Leads/{}/__conversion_options", None),
    "portal": ("POST", "Leads/{}/actions/portal_invite", {"data": [{"type": "invite"}]}),
    "assign": ("POST", "Leads/actions/assign_territories", {"data": [{"id": "ID", **TERRITORIES}]}),
    "remove": ("POST", "Leads/actions/remove_territories", {"data": [{"id": "ID", **TERRITORIES}]}),
    "assign_one": ("POST", "Leads/{}/actions/assign_territories", {"data": [TERRITORIES]}),
    "remove_one": ("POST", "Leads/{}/actions/remove_territories", {"data": [TERRITORIES]}),
    "blueprint": ("PUT", "Leads/{}/actions/blueprint", {"blueprint": [{"transition_id": "1", "data": ROW}]}),
    "send_mail": ("POST", "Leads/{}/actions/send_mail", {"data": [{"subject": "Hello"}]}),
    "clone": ("POST", "Leads/{}/actions/clone", None),
}
PHOTOS = {"photo_get", "photo_post", "photo_delete"}
SILENT = PHOTOS | {"mass_delete", "assign_one", "remove_one"}
IN_DATA = {
    "update", "update_one", "upsert", "delete", "delete_one", "remove_tags", "mass_update", "mass_delete",
    "change_owner", "convert", "assign", "remove", "clone",
}  # fmt: skip
TELLS_MERGE = {
    "update", "update_one", "delete", "delete_one", "add_tags", "remove_tags", "add_tags_one", "remove_tags_one",
    "mass_update", "change_owner", "change_owner_one", "assign", "remove",
}  # fmt: skip
HIDDEN = "Record locked or invalid permissions"
WAITING = [
    State.ZIA_VISION_REJECTED, State.ZIA_VISION_PENDING, State.APPROVAL_PROCESS_PENDING,
    State.APPROVAL_PROCESS_REJECTED, State.WEBFORM_UNAPPROVED, State.WEBFORM_INVALID,
    State.WEBFORM_INVALID_APPROVAL, State.WEBFORM_DOUBLE_OPTIN, State.EMAIL_PARSER_WAITING,
    State.EMAIL_PARSER_REJECTED,
]  # fmt: skip


def _do(send: Send, engine: Engine, name: str, record_id: str) -> Reply:
    method, path, body = CALLS[name]
    if isinstance(body, bytes):
        return send(engine, method, path.format(record_id), raw=body, Content_Type=BOUNDARY)
    filled = None if body is None else json.loads(json.dumps(body).replace("ID", record_id))
    return send(engine, method, path.format(record_id), filled)


def _refused(send: Send, name: str, state: str, **options: Any) -> dict[str, Any] | None:
    """Return the refusing item; `None` when the call went through."""
    engine = Engine(**options)
    record_id = engine.add_record("Leads", image=b"x", fields={"Last_Name": "Doe"})
    assert send(engine, "POST", f"Leads/{record_id}/actions/share", SHARE).status == 201
    engine.reset_log()
    engine.set_state(record_id, state)
    reply = _do(send, engine, name, record_id)
    if reply.status < 300:
        return None
    payload = reply.json()
    found = payload["data"][0] if "data" in payload else payload
    assert engine.refusals(record_id) == 1
    assert engine.calls[-1].refused_ids == (record_id,)
    assert engine.writes(record_id) == 0
    return {**found, "enveloped": "data" in payload, "http": reply.status}


@pytest.mark.parametrize("name", CALLS)
class TestEachCall:
    def test_an_approved_record_takes_the_call(self, send: Send, name: str) -> None:
        """And counts it as one write, unless it reads."""
        engine = Engine()
        record_id = engine.add_record("Leads", fields={"Last_Name": "Doe"}, image=b"x")
        if name == "share_revoke":
            send(engine, "POST", f"Leads/{record_id}/actions/share", SHARE)
            engine.reset_log()
        reply = _do(send, engine, name, record_id)
        assert reply.status in (200, 201)
        reads = name in ("photo_get", "options")
        assert engine.writes(record_id) == (not reads)
        assert engine.calls[-1].applied_ids == (() if reads else (record_id,))
        assert engine.calls[-1].record_ids == (record_id,)

    def test_zia_locks_all_but_the_conversion_options(self, send: Send, name: str) -> None:
        found = _refused(send, name, "zia_vision_validation")
        if name == "options":
            assert found is None
            return
        assert found is not None
        assert (found["code"], found["details"]["action"]) == ("RECORD_LOCKED", "zia_vision_processing")
        assert found["enveloped"] == (name in IN_DATA)
        assert found["http"] == 400
        assert "approved yet" in found["message"]

    @pytest.mark.parametrize("state", WAITING)
    def test_a_record_that_waits_for_approval_refuses_everything(self, send: Send, name: str, state: State) -> None:
        found = _refused(send, name, state)
        assert found is not None
        assert found["code"] == "NOT_APPROVED"
        assert "action" not in found["details"]
        assert found["enveloped"] == (name in IN_DATA - {"update_one", "upsert", "clone"})

    @pytest.mark.parametrize("state", [State.REVIEW_PROCESS_PENDING, State.REVIEW_PROCESS_REJECTED])
    def test_a_record_in_review_refuses_everything(self, send: Send, name: str, state: State) -> None:
        found = _refused(send, name, state)
        assert found is not None
        assert found["code"] == ("INVALID_DATA" if name == "mass_delete" else "NOT_REVIEWED")

    def test_record_locking_refuses_writes(self, send: Send, name: str) -> None:
        """Photos and the territories of one record without an action; mass delete behind INVALID_DATA."""
        found = _refused(send, name, "record_locking")
        if name in ("photo_get", "options"):
            assert found is None
            return
        assert found is not None
        code = "INVALID_DATA" if name == "mass_delete" else "RECORD_LOCKED"
        assert found["code"] == code
        assert found["details"].get("action") == (None if name in SILENT else "record_locking")

    def test_a_merge_refuses_and_tells_it_where_crm_requires_an_action(self, send: Send, name: str) -> None:
        found = _refused(send, name, "merge_pending")
        assert found is not None
        if name == "mass_delete":
            assert (found["code"], found["message"]) == ("INVALID_DATA", HIDDEN)
            return
        assert (found["code"], found["message"]) == ("RECORD_LOCKED", "record under merge is locked")
        assert found["details"].get("action") == ("merge" if name in TELLS_MERGE else None)

    def test_a_waiting_image_refuses_photo_calls_only(self, send: Send, name: str) -> None:
        found = _refused(send, name, "zia_image_pending")
        refused = found is not None and found["code"] == "NOT_APPROVED"
        assert refused == (name in PHOTOS)


class TestDetails:
    def test_oas_style_names_updates_by_place(self, send: Send) -> None:
        engine = Engine(details_style="oas")
        good, locked, waiting = (engine.add_record("Leads", state=s) for s in (
            "approved", "zia_vision_validation", "zia_vision_pending"))  # fmt: skip
        rows = [{"id": i, **ROW} for i in (good, locked, waiting)]
        reply = send(engine, "PUT", "Leads", {"data": rows})
        assert reply.status == 207
        assert [entry["details"] for entry in reply.json()["data"][1:]] == [
            {"api_name": "id", "json_path": "$.data[1].id", "action": "zia_vision_processing"},
            {"resource_path_index": 1},
        ]

    @pytest.mark.parametrize(("name", "shape"), [("delete", set()), ("delete_one", {"id"}),
        ("portal", {"record_id"}), ("options", {"resource_path_index"}), ("update", {"id"}),
        ("assign", {"id"}), ("remove", {"id"}), ("assign_one", {"id"})])  # fmt: skip
    def test_not_approved_details_differ_by_endpoint(self, send: Send, name: str, shape: set[str]) -> None:
        found = _refused(send, name, "zia_vision_pending")
        assert found is not None
        assert found["details"].keys() == shape

    @pytest.mark.parametrize("name", ["assign_one", "remove_one"])
    @pytest.mark.parametrize("state", ["record_locking", "merge_pending"])
    def test_a_lock_on_the_territories_of_one_record_names_the_segment(
        self, send: Send, name: str, state: str
    ) -> None:
        """OAS prints no other form; Zia's lock, which it does not know, keeps the form of the announcement."""
        found = _refused(send, name, state)
        assert found is not None
        assert found["details"] == {"resource_path_index": 1}
        zia = _refused(send, name, "zia_vision_validation")
        assert zia is not None
        assert zia["details"].keys() == {"id", "action"}

    @pytest.mark.parametrize("envelope", ["bare", "data"])
    @pytest.mark.parametrize("name", ["update", "update_one", "add_tags", "share", "convert", "photo_get"])
    def test_the_envelope_can_be_overridden(self, send: Send, name: str, envelope: Any) -> None:
        found = _refused(send, name, "zia_vision_validation", envelope=envelope)
        assert found is not None
        assert found["enveloped"] == (envelope == "data")

    def test_one_refused_id_is_bare_and_two_are_not(self, send: Send) -> None:
        """OAS prints add_tags bare for one id; with several there is one item each, and the count of locks."""
        engine = Engine()
        ids = [engine.add_record("Leads", state="zia_vision_validation") for _ in range(2)]
        reply = send(engine, "POST", "Leads/actions/add_tags", {**TAGS, "ids": ids})
        assert reply.status == 400
        assert reply.json()["locked_count"] == "2"
        assert [entry["details"]["id"] for entry in reply.json()["data"]] == ids


class TestCure:
    def test_a_rejected_record_refuses_a_new_photo(self, send: Send) -> None:
        assert _refused(send, "photo_post", "zia_vision_rejected") is not None

    def test_a_new_photo_starts_another_check_when_asked_for(self, send: Send, clock: Any) -> None:
        engine = Engine(clock=clock, cure_by_upload=True, validation_seconds=5.0)
        record_id = engine.add_record("Leads", state="zia_vision_rejected")
        assert _do(send, engine, "photo_post", record_id).status == 200
        assert engine.get(record_id).state is State.ZIA_VISION_VALIDATION
        clock.advance(5.0)
        assert engine.get(record_id).state is State.APPROVED

    def test_without_a_check_the_cure_is_immediate(self, send: Send) -> None:
        engine = Engine(cure_by_upload=True)
        record_id = engine.add_record("Leads", state="zia_vision_rejected", image=b"x")
        assert _do(send, engine, "photo_delete", record_id).status == 200
        assert engine.get(record_id).state is State.ZIA_VISION_REJECTED
        _do(send, engine, "photo_post", record_id)
        assert engine.get(record_id).state is State.APPROVED


def test_image_state_is_another_way_to_say_that_the_image_waits(send: Send, crm: Simulator) -> None:
    record_id = crm.add_record("Leads", image_state="zia_image_pending")
    assert _do(send, crm, "photo_get", record_id).json()["code"] == "NOT_APPROVED"
    assert _do(send, crm, "update", record_id).status == 200
    with pytest.raises(ValueError, match="image_state"):
        crm.add_record("Leads", image_state="merge_pending")
