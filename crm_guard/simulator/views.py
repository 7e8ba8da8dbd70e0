"""Records, calls, faults and plans as the control API shows them: JSON, and no secrets. Pure."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from .forms import HasFields
from .routes import TOKEN_PATH

if TYPE_CHECKING:
    from .faults import Fault
    from .messages import Call, Json
    from .new_rows import NewRefusal
    from .records import Record

HIDDEN = "(hidden)"
_SECRET = re.compile("auth|cookie|token|secret|key", re.IGNORECASE)
_QUERY_SECRET = re.compile(r"(?i)(^|&)([^=&]*(?:token|secret|key)[^=&]*)=[^&]*")
_OAUTH = TOKEN_PATH.rpartition("/")[0]


def record_view(record: Record, now: float) -> Json:
    """Return a record; `seconds_left`, `refusals_left` and `then` tell how its state ends."""
    ends = record.locked_until is not None or record.refusals_left is not None
    return {
        "id": record.id,
        "module": record.module,
        "state": record.state,
        "seconds_left": _left(record.locked_until, now),
        "refusals_left": record.refusals_left,
        "then": record.then if ends else None,
        "image_state": "zia_image_pending" if record.image_pending else None,
        "image_bytes": None if record.image is None else len(record.image),
        "lock_source": record.lock_source,
        "deleted": record.deleted,
        "converted": record.converted,
        "writes": record.writes,
        "refusals": record.refusals,
        "owner": record.owner,
        "tags": list(record.tags),
        "fields": record.fields,
    }


def call_view(number: int, call: Call) -> Json:
    """Return an entry of the call log; the bodies of calls for a token are hidden, since they hold secrets."""
    secret = call.path.startswith(_OAUTH)
    return {
        "number": number,
        "at": call.at,
        "method": call.method,
        "path": call.path,
        "query": HIDDEN if secret and call.query else _QUERY_SECRET.sub(rf"\1\2={HIDDEN}", call.query),
        "headers": {name: HIDDEN if _SECRET.search(name) else value for name, value in call.headers.items()},
        **_body("body", call.body, secret=secret),
        "status": call.status,
        **_body("response_body", call.response_body, secret=secret),
        "record_ids": call.record_ids,
        "applied_ids": call.applied_ids,
        "refused_ids": call.refused_ids,
        "connection": call.connection,
        "fault": call.fault,
        "credits": call.credits,
    }


def fault_view(fault: Fault) -> Json:
    """Return a planned fault: `after` and `times` are what is left of them."""
    return {
        "kind": fault.kind,
        "after": fault.after,
        "times": fault.times,
        "method": fault.method,
        "path": None if fault.path is None else fault.path.pattern,
        "applied": fault.applied,
        "delivered": fault.delivered,
    }


def refusal_view(plan: NewRefusal, now: float) -> Json:
    """Return a plan to refuse new rows."""
    return {
        "module": plan.module,
        "where": plan.where.fields if isinstance(plan.where, HasFields) else None,
        "cause": plan.cause,
        "refusals": plan.refusals,
        "seconds_left": _left(plan.until, now),
        "refused": plan.refused,
    }


def _left(until: float | None, now: float) -> float | None:
    return None if until is None else max(0.0, round(until - now, 3))


def _body(name: str, body: bytes, *, secret: bool) -> Json:
    """Return a body as text, or in base64 under another name if it is none."""
    if secret and body:
        return {name: HIDDEN}
    try:
        return {name: body.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(body).decode()}
