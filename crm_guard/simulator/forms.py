"""What the control API and start states may say: keys of records, faults, plans and options, with their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .faults import FaultKind, kind_of
from .inputs import (
    BASE64,
    BOOLEAN,
    COUNT,
    DELAY,
    HEADERS,
    MEMBERS,
    METHOD,
    MODULE,
    PATH_TEXT,
    PLAIN,
    RECORD_ID,
    SECONDS,
    InputError,
    Rule,
    choice,
    read_object,
    text,
    whole,
    within,
)
from .records import State
from .refusals import CAUSES

if TYPE_CHECKING:
    from .messages import Json


def _mandatory(value: Any) -> Mapping[str, list[str]]:
    """Return modules with the fields that they need."""
    lists = value.values() if isinstance(value, Mapping) else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise ValueError
    return dict(value)


STATE = choice(*State)
_REFUSING = choice(*CAUSES)
_ENDS: Mapping[str, Rule] = {"locked_for": SECONDS.or_null(), "refusals": whole(1).or_null()}

RECORD: Mapping[str, Rule] = {
    "module": MODULE.needed(),
    "id": RECORD_ID.or_null(),
    "state": STATE,
    **_ENDS,
    "then": STATE,
    "fields": MEMBERS,
    "image": BASE64.or_null(),
    "image_state": choice(State.ZIA_IMAGE_PENDING, State.APPROVED).or_null(),
    "lock_source": choice("Manual", "Automatic"),
}
"""The arguments of :meth:`Engine.add_record`; the image is in base64."""

LOCK: Mapping[str, Rule] = {"state": _REFUSING, **_ENDS, "then": STATE}
STATE_CHANGE: Mapping[str, Rule] = {"state": STATE.needed(), **_ENDS, "then": STATE}
UNLOCK: Mapping[str, Rule] = {"then": STATE}

FAULT: Mapping[str, Rule] = {
    "kind": Rule(tuple(FaultKind), lambda kind: kind_of(kind if type(kind) in (str, int) else "")).needed(),
    "after": COUNT,
    "times": COUNT.or_null("null for every call"),
    "method": METHOD.or_null(),
    "path": PATH_TEXT.or_null(),
    "applied": BOOLEAN.or_null(),
    "seconds": DELAY,
    "retry_after": SECONDS.or_null(),
    "status": whole(200, 599, "an HTTP status"),
    "body": PLAIN,
    "body_base64": BASE64,
    "headers": HEADERS,
}
"""The arguments of :meth:`Engine.fault`; a body that is no text is in base64."""

REFUSE_NEW: Mapping[str, Rule] = {"module": MODULE.needed(), "where": MEMBERS, **_ENDS, "state": _REFUSING}
"""The arguments of :meth:`Engine.refuse_new`; `where` names fields and the values that they must have."""

OPERATION = choice("READ", "CREATE", "UPDATE", "DELETE", "WRITE", "ALL")
CREDITS = COUNT.or_null("null for no limit")
TOKEN = replace(text(r"[!-~]{1,1000}", "a text of 1 to 1000 visible ASCII characters").or_null(), secret=True)

OPTIONS: Mapping[str, Rule] = {
    "token": TOKEN,
    "concurrency": whole(1).or_null("null for no limit"),
    "credits": CREDITS,
    "seed": COUNT,
    "latency": DELAY,
    "validation_seconds": SECONDS.or_null(),
    "validation_result": STATE,
    "caller": choice("direct", "sdk"),
    "details_style": choice("seed", "oas"),
    "envelope": choice("bare", "data").or_null(),
    "credits_header": choice("half", "always"),
    "mandatory": Rule("an object of modules to arrays of field names", _mandatory),
    "log_calls": whole(1),
    "log_bytes": COUNT,
    "max_body": COUNT,
    **dict.fromkeys(
        ("sandbox", "validation_touches", "cure_by_upload", "shuffle", "gzip", "cookies", "scheduled_convert"),
        BOOLEAN,
    ),
}
"""The options of :class:`Engine` but for its clock."""

_GO_WITH: Mapping[str, FaultKind] = {
    "seconds": FaultKind.SLOW,
    "retry_after": FaultKind.THROTTLED,
    **dict.fromkeys(("status", "body", "body_base64", "headers"), FaultKind.ANSWER),
}


@dataclass(frozen=True, slots=True)
class HasFields:
    """Whether a new row has certain values."""

    fields: Mapping[str, object]

    def __call__(self, row: Json) -> bool:
        """Return whether all of them are those of `row`."""
        return all(name in row and row[name] == value for name, value in self.fields.items())


def read_record(value: object, place: str = "") -> dict[str, Any]:
    """Return the arguments of :meth:`Engine.add_record` that an object gives.

    Raises:
        InputError: It is none of a record.
    """
    return read_object(value, RECORD, place)


def read_fault(value: object, place: str = "") -> dict[str, Any]:
    """Return the arguments of :meth:`Engine.fault` that an object gives.

    Raises:
        InputError: It is none of a fault, or gives what its kind would not look at.
    """
    form = read_object(value, FAULT, place)
    for name, kind in _GO_WITH.items():
        if name in form and form["kind"] is not kind:
            field = within(place, name)
            msg = f'{field} goes with kind "{kind}" only, not with "{form["kind"]}"'
            raise InputError(msg, field=field, value=form[name], allowed=f"nothing, or kind={kind}")
    if form["kind"] is FaultKind.SLOW and not form.get("seconds"):
        field = within(place, "seconds")
        msg = f'{field} must be given, and above 0, with kind "slow"'
        raise InputError(msg, field=field, value=form.get("seconds"), allowed=DELAY.allowed)
    if "body_base64" in form:
        if "body" in form:
            field = within(place, "body_base64")
            msg = f"{field} is given beside body"
            raise InputError(msg, field=field, allowed="one of body and body_base64")
        form["body"] = form.pop("body_base64")
    return form


def read_refuse_new(value: object, place: str = "") -> dict[str, Any]:
    """Return the arguments of :meth:`Engine.refuse_new` that an object gives.

    Raises:
        InputError: It is none of such a plan.
    """
    form = read_object(value, REFUSE_NEW, place)
    if "where" in form:
        form["where"] = HasFields(form["where"])
    return form
