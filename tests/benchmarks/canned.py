"""What the benchmarks are made on: answers in the shapes and sizes that CRM's API sends."""

from __future__ import annotations

import json

DOWNLOAD_BYTES = 64 * 1024 * 1024
BATCH, LOCKED, LISTED = 100, 10, 200
JSON = "application/json;charset=UTF-8"


def record_id(number: int) -> str:
    return str(111112000000142001 + number)


def success(number: int) -> dict:
    person = {"name": "Patricia Boyle", "id": "111112000000032101"}
    times = {"Modified_Time": "2026-05-10T01:10:47-07:00", "Created_Time": "2026-05-10T01:08:27-07:00"}
    details = {**times, "Modified_By": person, "id": record_id(number), "Created_By": person}
    details["$approval_state"] = "approved"
    return {
        "code": "SUCCESS",
        "duplicate_field": None,
        "action": "update",
        "details": details,
        "message": "record updated",
        "status": "success",
    }


def lock(number: int) -> dict:
    details = {"action": "zia_vision_processing", "id": record_id(number)}
    return {"code": "RECORD_LOCKED", "details": details, "message": "record is locked", "status": "error"}


def listed(number: int) -> dict:
    fields = {f"Field_{index}": f"a value of some length, number {index}" for index in range(42)}
    return {"id": record_id(number), "Company": "Zylker", "Last_Name": f"Boyle {number}", **fields}


def dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


ONE_RECORD = dumped({"data": [{"id": record_id(0), "Company": "Zylker"}]})
MANY_RECORDS = dumped({"data": [{"id": record_id(n), "Company": "Zylker"} for n in range(BATCH)]})

ONE_SUCCESS = dumped({"data": [success(0)]})
MANY_SUCCESSES = dumped({"data": [success(n) for n in range(BATCH)]})
LATE_SUCCESSES = dumped({"data": [success(n) for n in range(0, BATCH, BATCH // LOCKED)]})
SOME_LOCKED = dumped({"data": [success(n) if n % (BATCH // LOCKED) else lock(n) for n in range(BATCH)]})
LIST = dumped({"data": [listed(n) for n in range(LISTED)], "info": {"more_records": False, "page": 1}})
INVALID = dumped(
    {
        "data": [
            {
                "code": "INVALID_DATA",
                "details": {"expected_data_type": "text", "api_name": "Company"},
                "message": "invalid data",
                "status": "error",
            }
        ]
    }
)

# Path behind the version: status, content type, body.
ANSWERS = {
    "Leads/1": (200, JSON, ONE_SUCCESS),
    "Leads/2": (400, JSON, INVALID),
    "Leads/many": (200, JSON, MANY_SUCCESSES),
    "Leads": (200, JSON, LIST),
    "files": (200, "application/octet-stream", bytes(DOWNLOAD_BYTES)),
}
