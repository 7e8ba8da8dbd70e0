"""The resources of the control API: what each path and method of it does with an engine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from .forms import (
    CREDITS,
    LOCK,
    STATE,
    STATE_CHANGE,
    TOKEN,
    UNLOCK,
    read_fault,
    read_record,
    read_refuse_new,
)
from .inputs import MODULE, MOST_SECONDS, SECONDS, InputError, Rule, choice, decoded, read_object, whole
from .messages import Reply, Request
from .views import call_view, fault_view, record_view, refusal_view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .engine import Engine

_CALLS = 100
_MOST_CALLS = 1000
_LONGEST = 10 * MOST_SECONDS  # some 300 years: the simulator's calendar must not end
_PARAMETERS = 100


class ControlError(Exception):
    """A request that is answered with an error, in `reply`."""

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **about: object
    ) -> None:
        super().__init__(message)
        self.reply = as_json(status, {"error": {"message": message, **about}}, headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request to a resource.

    Attributes:
        engine: The CRM.
        plant: Fills a new engine at a reset, or `None`.
        born: Instant at which the control API began, in seconds on the engine's clock.
        request: The request.
        id: The record in its path, or an empty text.
    """

    engine: Engine
    plant: Callable[[Engine], object] | None
    born: float
    request: Request
    id: str

    def body(self) -> Any:
        """Return the value of the body.

        Raises:
            InputError: It is no JSON.
        """
        return decoded(self.request.body)

    def form(self, rules: Mapping[str, Rule]) -> dict[str, Any]:
        """Return the members of the body.

        Raises:
            InputError: One of them is not allowed.
        """
        return read_object(self.body(), rules)

    def query(self, rules: Mapping[str, Rule]) -> dict[str, Any]:
        """Return the query parameters; digits are read as numbers.

        Raises:
            InputError: One of them is not allowed.
        """
        try:
            pairs = parse_qsl(self.request.query, keep_blank_values=True, max_num_fields=_PARAMETERS)
        except ValueError:
            msg = f"the query has more than {_PARAMETERS} parameters"
            raise InputError(msg, field="", allowed=tuple(rules)) from None
        return read_object({name: _number(value) for name, value in pairs}, rules)


def as_json(status: int, value: object, headers: Mapping[str, str] | None = None) -> Reply:
    """Return `value` as JSON that people can read."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError:  # a client of CRM may have written NaN into a field
        text = json.dumps(json.loads(json.dumps(value), parse_constant=str), indent=2)
    named = {"Content-Type": "application/json", **(headers or {})}
    return Reply(status=status, headers=named, body=f"{text}\n".encode())


def _number(value: str) -> int | str:
    return int(value) if re.fullmatch("[0-9]{1,18}", value) else value


def _list_records(ask: Ask) -> Reply:
    wanted = ask.query({"module": MODULE, "state": STATE})
    now = ask.engine.now()
    views = (record_view(record, now) for record in ask.engine.records.values())
    return as_json(200, {"records": [view for view in views if all(view[key] == wanted[key] for key in wanted)]})


def _add_record(ask: Ask) -> Reply:
    form = read_record(ask.body())
    try:
        added = ask.engine.add_record(**form)
    except ValueError as error:
        raise ControlError(
            409, str(error), field="id", value=form.get("id"), allowed="an id that is not taken"
        ) from None
    return as_json(HTTPStatus.CREATED, record_view(ask.engine.get(added), ask.engine.now()))


def _show_record(ask: Ask) -> Reply:
    return as_json(200, record_view(ask.engine.get(ask.id), ask.engine.now()))


def _remove_record(ask: Ask) -> Reply:
    ask.engine.remove_record(ask.id)
    return as_json(200, {"removed": ask.id})


def _lock(ask: Ask) -> Reply:
    ask.engine.set_state(ask.id, **{"state": "zia_vision_validation", **ask.form(LOCK)})
    return _show_record(ask)


def _set_state(ask: Ask) -> Reply:
    ask.engine.set_state(ask.id, **ask.form(STATE_CHANGE))
    return _show_record(ask)


def _unlock(ask: Ask) -> Reply:
    ask.engine.unlock(ask.id, **ask.form(UNLOCK))
    return _show_record(ask)


def _list_faults(ask: Ask) -> Reply:
    return as_json(200, {"faults": [fault_view(fault) for fault in ask.engine.faults]})


def _add_fault(ask: Ask) -> Reply:
    planned = ask.engine.fault(**read_fault(ask.body()))
    return as_json(HTTPStatus.CREATED, fault_view(planned))


def _clear_faults(ask: Ask) -> Reply:
    ask.engine.clear_faults()
    return _list_faults(ask)


def _list_refusals(ask: Ask) -> Reply:
    now = ask.engine.now()
    return as_json(200, {"refuse_new": [refusal_view(plan, now) for plan in ask.engine.new_refusals]})


def _refuse_new(ask: Ask) -> Reply:
    plan = ask.engine.refuse_new(**read_refuse_new(ask.body()))
    return as_json(HTTPStatus.CREATED, refusal_view(plan, ask.engine.now()))


def _accept_new(ask: Ask) -> Reply:
    ask.engine.accept_new()
    return _list_refusals(ask)


def _calls(ask: Ask) -> Reply:
    asked = {"since": 0, "limit": _CALLS, **ask.query({"since": whole(0), "limit": whole(1, _MOST_CALLS)})}
    since = asked["since"] if asked["since"] <= ask.engine.answered else 0  # else the log was reset meanwhile
    found = ask.engine.calls_after(since)
    shown = found[: asked["limit"]]
    following = shown[-1][0] if shown else since
    views = [call_view(number, call) for number, call in shown]
    return as_json(200, {"calls": views, "next": following, "more": len(found) > len(shown)})


def _counts(ask: Ask) -> Reply:
    return as_json(200, ask.engine.tally())


def _token(ask: Ask) -> Reply:
    form = ask.form({"new": TOKEN})
    ask.engine.expire_token(form.get("new"))
    return as_json(200, {"accepted": "the new token alone" if form.get("new") else "none"})


def _deny(ask: Ask) -> Reply:
    operations = choice("READ", "CREATE", "UPDATE", "DELETE", "WRITE", "ALL").needed()
    form = {
        "token": None,
        "module": None,
        **ask.form({"operation": operations, "module": MODULE.or_null(), "token": TOKEN}),
    }
    ask.engine.deny_scope(**form)
    return as_json(200, {"denied": form["operation"], "module": form["module"]})


def _credits(ask: Ask) -> Reply:
    ask.engine.set_credits(ask.form({"remaining": CREDITS.needed()})["remaining"])
    return as_json(200, {"remaining": ask.engine.credits_remaining})


def _show_clock(ask: Ask) -> Reply:
    return as_json(200, {"now": ask.engine.now()})


def _advance(ask: Ask) -> Reply:
    seconds = ask.form({"advance": SECONDS.needed()})["advance"]
    advance = getattr(ask.engine.clock, "advance", None)
    if not callable(advance):
        raise ControlError(409, "the clock of this simulator cannot be advanced: it was given one that only runs")
    if ask.engine.now() + seconds > ask.born + _LONGEST:
        msg = f"advance={seconds} is too far: since the start no more than {_LONGEST} seconds may pass"
        raise InputError(msg, field="advance", value=seconds, allowed="less")
    advance(seconds)
    return _show_clock(ask)


def _reset(ask: Ask) -> Reply:
    what = ask.form({"what": choice("all", "log")}).get("what", "all")
    if what == "log":
        ask.engine.reset_log()
    else:
        ask.engine.reset(ask.plant)
    return as_json(200, {"reset": what})


RESOURCES: Mapping[str, Mapping[str, Callable[[Ask], Reply]]] = {
    "records": {"GET": _list_records, "POST": _add_record},
    "records/{id}": {"GET": _show_record, "DELETE": _remove_record},
    "records/{id}/lock": {"POST": _lock},
    "records/{id}/state": {"POST": _set_state},
    "records/{id}/unlock": {"POST": _unlock},
    "refuse_new": {"GET": _list_refusals, "POST": _refuse_new, "DELETE": _accept_new},
    "faults": {"GET": _list_faults, "POST": _add_fault, "DELETE": _clear_faults},
    "calls": {"GET": _calls},
    "counts": {"GET": _counts},
    "token": {"POST": _token},
    "credits": {"POST": _credits},
    "scopes": {"POST": _deny},
    "clock": {"GET": _show_clock, "POST": _advance},
    "reset": {"POST": _reset},
}
"""Paths below the prefix to methods to what answers them, which raises KeyError for an unknown `{id}`."""

TAKES_QUERY = frozenset({("GET", "records"), ("GET", "calls")})
"""The paths and methods that take query parameters."""
