"""Finds the answers of CRM in a value: as it is, or kept in lists, in log objects and in texts. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from crm_guard.cli.explain.facts import facts_of
from crm_guard.cli.explain.mentions import GUARDED_CODE
from crm_guard.cli.explain.pasted import Facts, Pasted
from crm_guard.cli.explain.shapes import Shape, body_of, is_item, is_refusal, items_in, may_be_answer, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.cli.explain.values import Budget

_MOST_WRAPPED: Final = 12
"""Texts in texts, and objects in objects, around an answer."""
# Keys under which logs, HTTP clients and HAR files keep a text that holds an answer. Any other text may be the
# value of a field, which is never searched.
_WRAPPERS: Final = frozenset(
    {
        *(
            "answer",
            "body",
            "content",
            "data",
            "detail",
            "details",
            "entries",
            "error",
            "errors",
            "event",
            "exc_info",
        ),
        *("exc_text", "exception", "json", "log", "message", "msg", "payload", "reason", "response", "responses"),
        *("result", "results", "stack_trace", "stacktrace", "stderr", "stdout", "text", "traceback"),
    }
)
# Names that programs make up end in one of these words (`response_body`, `zohoAnswer`); those of Zoho's fields
# begin with a capital (`Email_Body`).
_ENDING: Final = re.compile(
    r"(?:response(?=[bt])|(?:[a-z][\w.-]{0,80}?(?:[_.-]|(?<=[a-z0-9])(?=[A-Z]))))?"
    r"(?i:body|response|text|answer|payload|message)"
)
# What was sent is no answer; `config` is axios's name for it.
_SENT: Final = re.compile(r"config|(?i:request|req)(?![a-z]).*", re.DOTALL)


@dataclass(slots=True, kw_only=True)
class Wrapping:
    """What an answer is found in.

    Attributes:
        budget: What may still be read.
        read: Reads a text in here.
        facts: What is known of the call.
        form: The syntax.
        depth: Number of things around it.
    """

    budget: Budget
    read: Callable[[str, Wrapping], list[Pasted]]
    facts: Facts = field(default_factory=Facts)
    form: str = ""
    depth: int = 0

    def deeper(self, form: str = "", facts: Facts | None = None) -> Wrapping:
        """Return what the inside of something in here is found in."""
        return replace(
            self, facts=(facts or Facts()).over(self.facts), form=form or self.form, depth=self.depth + 1
        )

    def allows(self, text: str) -> bool:
        """Return whether a text in here is read, too."""
        return self.depth < _MOST_WRAPPED and self.budget.allows(text)


def worth_telling(found: list[Pasted]) -> list[Pasted]:
    """Leave out what others tell better: rows without a head (often the request's), a code that is only named."""
    if any(not one.rows or one.facts.status for one in found):
        found = [one for one in found if not one.rows or one.facts.status]
    told = {code for one in found if not one.bare for code in GUARDED_CODE.findall(one.body.decode())}
    return [one for one in found if not one.bare or told.isdisjoint(GUARDED_CODE.findall(one.body.decode()))]


def unwrap(value: Any, wrapping: Wrapping) -> list[Pasted]:
    """Return the answers in a value."""
    if wrapping.depth > _MOST_WRAPPED:
        return []
    if isinstance(value, str):
        return _unwrap_text(value, wrapping)
    if isinstance(value, list):
        if value and all(is_item(one) for one in value):
            return [Pasted(body=body_of({"data": value}), form=f"{wrapping.form}: the items of a body")]
        return [found for one in value for found in unwrap(one, wrapping.deeper())]
    return _unwrap_object(value, wrapping) if isinstance(value, dict) else []


def _unwrap_text(value: str, wrapping: Wrapping) -> list[Pasted]:
    if not ("{" in value or GUARDED_CODE.search(value)) or not wrapping.allows(value):
        return []
    return [replace(one, form=f"{one.form} in a string") for one in wrapping.read(value, wrapping.deeper())]


def _unwrap_object(value: dict[str, Any], wrapping: Wrapping) -> list[Pasted]:
    """Return the answer that an object is, or those that it holds under the usual keys."""
    body = body_of(value) if may_be_answer(value) else b""
    envelope = items_in(body) if body else None
    shape = shape_of(value, envelope)
    if shape is Shape.ROWS or shape is Shape.DOUBTFUL:
        return [Pasted(body=body, form=wrapping.form, rows=shape is Shape.ROWS, doubtful=shape is Shape.DOUBTFUL)]
    bare_item = envelope is None or envelope.bare
    inner = _unwrap_members(value, wrapping) if bare_item and not (envelope and envelope.guarded) else []
    if inner and (envelope is None or any(_tells_refusal(one) for one in inner)):
        return inner
    if is_refusal(value) and envelope is None:
        return [_partial_item(value, wrapping)]
    return [Pasted(body=body, form=wrapping.form)] if shape is Shape.RESULTS else []


def _tells_refusal(one: Pasted) -> bool:
    return not one.bare and GUARDED_CODE.search(one.body.decode()) is not None


def _unwrap_members(value: dict[str, Any], wrapping: Wrapping) -> list[Pasted]:
    facts = facts_of(value)
    held = wrapping.deeper(facts=facts)
    found = [
        replace(
            one,
            form=one.form if " under " in one.form else f"{one.form} under {key!r}",
            facts=one.facts.over(facts),
        )
        for key, member in value.items()
        if not _SENT.fullmatch(key) and (_wraps(key) or isinstance(member, dict | list))
        for one in unwrap(member, held)
    ]
    return worth_telling(found)


def _wraps(key: str) -> bool:
    return key.lower() in _WRAPPERS or _ENDING.fullmatch(key) is not None


def _partial_item(value: dict[str, Any], wrapping: Wrapping) -> Pasted:
    """Return a refusal that a log tells of in fields of its own."""
    ids = value.get("record_ids")
    record = value.get("id") or value.get("record_id") or (ids[0] if isinstance(ids, list) and ids else None)
    action = value.get("action")
    own = {"id": record, "action": action if isinstance(action, str) and "_" in action else None}
    details = value.get("details")
    named = {**{key: one for key, one in own.items() if one}, **(details if isinstance(details, dict) else {})}
    item = {"code": value["code"], "status": "error", "message": value.get("message"), "details": named}
    form = f"{wrapping.form}: a part of an item"
    return Pasted(body=body_of(item), form=form, facts=facts_of(value), vague="action" not in named)
