"""The lock of the Record Locking feature: read, made, explained and lifted. OAS: `locking_informations`.

The configurations of the feature are not simulated: every module has one that lets records be locked by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .envelopes import UNKNOWN_ID, path_record
from .messages import Json, Reply, RequestError, answer, bare, item
from .records import USER, Record, State
from .writes import stamps

if TYPE_CHECKING:
    from .visit import Visit

_MANUAL = "Manual"
_REASON = "Locked_Reason__s"
_MODULE_ID, _CONFIGURATION_ID, _RULE_ID = "5725767000000002175", "5725767000000053641", "5725767000000054290"


def list_locks(visit: Visit) -> Reply:
    """GET /{module}/{id}/Locking_Information__s. What a record without a lock gets is undocumented: 204."""
    record = path_record(visit)
    if record.state is not State.RECORD_LOCKING:
        return Reply(status=204)
    info = {"per_page": 200, "count": 1, "page": 1, "more_records": False}
    return answer(200, {"data": [_lock(visit, record)], "info": info})


def read_lock(visit: Visit) -> Reply:
    """GET /{module}/{id}/Locking_Information__s/{lock}. An unknown lock is undocumented here: as in a change."""
    return answer(200, {"data": [_lock(visit, _locked_record(visit))]})


def lock_record(visit: Visit) -> Reply:
    """POST /{module}/{id}/Locking_Information__s: lock by hand."""
    record = path_record(visit)
    reason = _reason(visit)
    if record.state is State.RECORD_LOCKING:
        raise RequestError(_not_allowed("record is already locked"))
    record.lock_by_hand(visit.store.new_id(), reason)
    moment = visit.store.iso(visit.now)
    details = {**stamps(visit, record), "id": record.lock_id, "Created_Time": moment, "Modified_Time": moment}
    del details["$approval_state"]
    return answer(201, {"data": [item("SUCCESS", "record added", details)]})


def change_reason(visit: Visit) -> Reply:
    """PUT /{module}/{id}/Locking_Information__s/{lock}: for locks made by hand only."""
    record = _locked_record(visit)
    reason = _reason(visit)
    if record.lock_source != _MANUAL:
        raise RequestError(_not_allowed("record cannot be locked, only automatic locking is configured"))
    record.lock_reason = reason
    return answer(200, {"data": [item("SUCCESS", "relation updated", {"id": record.lock_id})]})


def unlock_record(visit: Visit) -> Reply:
    """DELETE /{module}/{id}/Locking_Information__s/{lock}: for locks made by hand only.

    It approves nothing: a record that waited or was rejected before it was locked does so again.
    """
    record = _locked_record(visit)
    if record.lock_source != _MANUAL:
        raise RequestError(_not_allowed("Automatically locked records can not be unlocked manually"))
    lock_id = record.lock_id
    record.unlock_by_hand()
    return answer(200, {"data": [item("SUCCESS", "relation removed", {"id": lock_id})]})


def _locked_record(visit: Visit) -> Record:
    """Return the record that the path names, locked by the lock that the path names.

    Raises:
        RequestError: There is no such record, or no such lock.
    """
    record = path_record(visit)
    if record.state is not State.RECORD_LOCKING or visit.route.lock_id != _lock_id(visit, record):
        raise RequestError(bare(400, "INVALID_DATA", UNKNOWN_ID, {"resource_path_index": 3}))
    return record


def _reason(visit: Visit) -> str:
    """Return the reason that the body gives.

    Raises:
        RequestError: It gives none.
    """
    reason = visit.rows()[0].get(_REASON)
    if isinstance(reason, str) and reason:
        return reason
    where = {"api_name": _REASON, "json_path": f"$.data[0].{_REASON}"}
    problem = item("MANDATORY_NOT_FOUND", "required field not found", where)
    raise RequestError(answer(400, {"data": [problem]}))


def _not_allowed(message: str) -> Reply:
    return bare(403, "NOT_ALLOWED", message, {"resource_path_index": 1})


def _lock_id(visit: Visit, record: Record) -> str:
    """Return the id of the record's lock, made up where a state and no call locked it."""
    record.lock_id = record.lock_id or visit.store.new_id()
    return record.lock_id


def _lock(visit: Visit, record: Record) -> Json:
    """Return the lock as it is listed: by a person, or by a rule."""
    manual = record.lock_source == _MANUAL
    names = (record.fields.get(key) for key in ("Full_Name", "Last_Name", "Account_Name", "Deal_Name", "Name"))
    locked_for = {
        "module": {"api_name": record.module, "id": _MODULE_ID},
        "name": next(filter(None, names), ""),
        "id": record.id,
    }
    return {
        "id": _lock_id(visit, record),
        "Locked_By__s": dict(USER) if manual else None,
        "Locked_For__s": locked_for,
        _REASON: record.lock_reason if manual else None,
        "Lock_Source__s": record.lock_source,
        "Locked_Time__s": visit.store.iso(record.modified),
        "Feature_Type__s": "record_locking",
        "Record_Locking_Configuration_Id__s": _CONFIGURATION_ID,
        "Record_Locking_Rule_Id__s": None if manual else _RULE_ID,
        "$editable": manual,
        "$sharing_permission": "full_access" if manual else "read_only",
        "$field_states": None,
        "$zia_visions": None,
    }
