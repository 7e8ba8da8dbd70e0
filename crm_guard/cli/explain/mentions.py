"""Finds refusals of which a text tells in words: exceptions, reprs, log lines, a code alone. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from crm_guard._base.codes import GUARDED, UNAPPROVED
from crm_guard.cli.explain.facts import facts_in, failure_in
from crm_guard.cli.explain.pasted import MOST_ANSWERS, Pasted
from crm_guard.cli.explain.shapes import body_of
from crm_guard.cli.explain.units import QUOTED_ACTION, QUOTED_ID, belongings
from crm_guard.remediation import ApprovalCase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from crm_guard.cli.explain.pasted import Facts

_CODES: Final = "|".join(sorted(GUARDED))
GUARDED_CODE: Final = re.compile(rf"(?<![A-Za-z0-9_])(?:{_CODES})(?![A-Za-z0-9_])")
_ONE_CODE: Final = re.compile(rf"[\s\"'`.,;:]{{0,20}}({_CODES})[\s\"'`.,;:!]{{0,20}}", re.IGNORECASE)
_IDS: Final = r"\((?P<ids>[0-9, .]{1,200})\)"
# The text of the guard's exceptions (crm_guard.report), and of its log lines.
_ERROR: Final = re.compile(
    rf"CRM refused (?:record(?: (?P<id>[0-9]{{1,25}}))?|(?P<count>[0-9]{{1,9}}) of [0-9]{{1,9}} records"
    rf"(?: {_IDS})?)\s+with\s+(?P<code>{_CODES})(?:\s+\((?P<cause>[\w.-]{{1,64}})\))?"
)
_EVENT: Final = re.compile(
    rf"(?P<count>[0-9]{{1,9}}) records?(?: {_IDS})? (?P<code>{_CODES})(?: (?P<cause>[\w.-]{{1,64}}))?, attempt "
)
_OUTCOME: Final = re.compile(r"RecordOutcome\((?P<inside>[^()\n]{1,4000})\)")
_QUOTED_CODE: Final = re.compile(r"(?<![\w$])code=[\"']([A-Z_]{1,64})[\"']")
SDK_FORM: Final = "an exception text of Zoho's SDK"
# `SDKException` of zohocrmsdk 8.0 prints `Caused By: {code} - {message}{details}`.
_SDK: Final = re.compile(r"Caused By: (?P<code>[A-Z][A-Z0-9_]{2,63}) - (?P<message>[^\n{}]{0,500})")
_NEAR: Final = 600
"""Characters on either side of a code in which what belongs to it is looked for."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A refusal that a text tells of.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        code: CRM's code.
        ids: The records, as far as they are named.
        cause: The lock's action or the approval case, None if there is none.
        count: Number of records, None if it is not told.
        form: What it is, in a few words.
        near: The text that tells of the call.
        told: Whether the text would name a cause if there was one.
    """

    start: int
    end: int
    code: str
    ids: tuple[str, ...]
    cause: str | None
    count: int | None
    form: str
    near: str = field(repr=False, default="")
    told: bool = False


def named_in(text: str) -> int:
    """Return how often guarded codes are named in a text, also with escapes right before them."""
    return sum(text.count(code) for code in GUARDED)


def only_code(text: str) -> str | None:
    """Return the guarded code that is all of a text, in any case; None if there is more, or less."""
    found = _ONE_CODE.fullmatch(text) if len(text) < _NEAR else None
    return found[1].upper() if found else None


def bare(code: str, facts: Facts, *, form: str) -> Pasted:
    """Return a code alone."""
    item = {"code": code, "status": "error", "details": {}}
    return Pasted(body=body_of(item), form=form, facts=facts, vague=True, bare=True)


def told_in(text: str) -> list[tuple[int, Pasted]]:
    """Return what the guard's own exceptions, log lines and reprs in a text tell, each with its place."""
    told = islice(_told(text), MOST_ANSWERS + 1)  # which is too many already
    return [(found.start, _pasted(found)) for found in sorted(told, key=lambda found: found.start)]


def mentioned_in(text: str) -> list[Pasted]:
    """Return the guarded codes in a text, each with the record and the cause that belong to it; none twice."""
    found: dict[tuple[str, str | None, str | None], Mention] = {}
    times: Counter[tuple[str, str | None, str | None]] = Counter()
    for match in GUARDED_CODE.finditer(text):
        own = belongings(text, *match.span())
        key = (match[0], own.record, own.cause)
        times[key] += 1
        if key not in found:
            ids = (own.record,) if own.record else ()
            near = text[max(0, match.start() - _NEAR) : match.end() + _NEAR]
            found[key] = Mention(*match.span(), match[0], ids, own.cause, None, "", near)
        if len(found) > MOST_ANSWERS:
            break
    kept = _most_telling(found.values())
    told = [_pasted(one, times=times[one.code, one.ids[0] if one.ids else None, one.cause]) for one in kept]
    for code in dict.fromkeys(one.code for one in found.values()):
        place = next(place for place, one in enumerate(kept) if one.code == code)
        alone = times[code, None, None] if kept[place].ids or kept[place].cause else 0
        if alone:
            more = f"{code} is named {alone} more times, without record or cause"
            told[place] = replace(told[place], notes=(*told[place].notes, more))
    return told


def sdk_text(text: str) -> dict[str, str] | None:
    """Return code and message where a text ends as an exception of Zoho's SDK begins; else None."""
    found = None
    for found in _SDK.finditer(text):  # noqa: B007 (the last one)
        pass
    return found.groupdict() if found and found.end() == len(text) else None


def failures_in(text: str) -> list[Pasted]:
    """Return what an exception text says of a call that failed as a whole; nothing if it is none."""
    found = _SDK.search(text)
    if found:
        return [Pasted(body=body_of({**found.groupdict(), "status": "error", "details": {}}), form=SDK_FORM)]
    failure = failure_in(text)
    return [Pasted(form="an error text of requests, without the body", facts=failure)] if failure else []


def _most_telling(found: Collection[Mention]) -> list[Mention]:
    """Leave out a code alone where another mention tells more of it."""
    precise = {one.code for one in found if one.ids or one.cause}
    return [one for one in found if one.ids or one.cause or one.code not in precise]


def _told(text: str) -> Iterator[Mention]:
    for pattern, form in ((_ERROR, "the text of a guard's exception"), (_EVENT, "a log line of the guard")):
        for found in pattern.finditer(text):
            named = found.groupdict()
            ids = tuple(re.findall("[0-9]+", named["ids"] or "")) or ((named["id"],) if named.get("id") else ())
            count = int(named["count"]) if named["count"] else None
            near = text[max(0, found.start() - _NEAR) : found.start()]
            yield Mention(*found.span(), named["code"], ids, named["cause"], count, form, near, told=True)
    for found in _OUTCOME.finditer(text):
        code = _QUOTED_CODE.search(found["inside"])
        if code and code[1] in GUARDED:
            record, action = QUOTED_ID.search(found["inside"]), QUOTED_ACTION.search(found["inside"])
            ids, cause = (record[1],) if record else (), action[1] if action else None
            yield Mention(*found.span(), code[1], ids, cause, None, "the repr of an outcome", told=True)


def _pasted(found: Mention, *, times: int = 1) -> Pasted:
    form = found.form or f"the code {found.code} in other text"
    repeated = (f"named {times} times",) if times > 1 and not found.ids else ()
    facts = facts_in(found.near)
    if not (found.ids or found.cause or found.told):
        return replace(bare(found.code, facts, form=form), notes=repeated)
    case = _case(found)
    details: dict[str, Any] = {"action": found.cause} if found.cause and found.code not in UNAPPROVED else {}
    items = [
        {"code": found.code, "status": "error", "details": {**details, **({"id": record} if record else {})}}
        for record in found.ids or (None,)
    ]
    missing = (found.count or 0) - len(found.ids)
    notes = (f"{found.count} records, {len(found.ids)} of them named",) if missing > 0 and found.count != 1 else ()
    return Pasted(
        body=body_of({"data": items}),
        form=form,
        facts=facts,
        case=case,
        notes=(*notes, *repeated),
        vague=not (found.told or found.cause),
    )


def _case(found: Mention) -> ApprovalCase | None:
    known = {case.value: case for case in ApprovalCase}
    return known.get(found.cause or "") if found.code in UNAPPROVED else None
