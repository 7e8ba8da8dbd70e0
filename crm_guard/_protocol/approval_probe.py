"""The request that asks for approval states: what it sends, headers included, and how its answer is read. Pure.

The error is the same for every case; the record's `$approval_state` is not. One Get Records call reads it for up to
100 records. It asks for `id,$approval_state` and nothing else: both are documented for `fields`, so it never
needs a second try without unknown names.

An answer without a state (204, a missing id, no scope, HTML) leaves the candidates that follow from code and call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import msgspec

from crm_guard._base.codes import FORBIDDEN, UNAUTHORIZED
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard.remediation import (
    MODULE_NAME,
    RECORD_ID,
    harmless_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IDS_PER_PROBE = 100

_T = TypeVar("_T")

# The headers that identify the caller and the organisation. No other header of the caller is sent.
# `Host` is set by callers that use an IP address: the probe must reach the same CRM.
_HEADERS = frozenset({"host", "authorization", "orgid", "org-id", "x-org-id", "x-crm-org"})
_HEADER_PREFIXES = ("x-zoho-", "x-com-zoho-")

_SCOPE_REFUSALS = frozenset(
    {(UNAUTHORIZED, "OAUTH_SCOPE_MISMATCH"), (FORBIDDEN, "OAUTH_SCOPE_MISMATCH"), (FORBIDDEN, "NO_PERMISSION")}
)


@dataclass(frozen=True, slots=True)
class Probe:
    """One GET that reads the approval state of some records."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    ids: tuple[str, ...]


def build_probes(*, url: str, module: str, ids: Sequence[str], headers: Mapping[str, str]) -> tuple[Probe, ...]:
    """Return the calls that read the records' states, of at most 100 records each.

    They go to the scheme, host, port and API version of `url`. Unsafe parts are left out: an id that is not a
    decimal string, a header that is not on the list. An unsafe URL or module yields no probe.

    Args:
        url: The full URL of the guarded request.
        module: The API name of the records' module.
        ids: Record ids; duplicates are asked once.
        headers: The headers of the guarded request.
    """
    base, kept = CrmUrl.of(url).harmless_base, _headers(headers)
    if base is None or not MODULE_NAME.fullmatch(module):
        return ()
    return tuple(Probe(f"{base}/{module}?{_query(chunk)}", kept, chunk) for chunk in _chunks(ids))


def read_states(body: bytes) -> dict[str, str]:
    """Return `$approval_state` by record id; empty for any other kind of answer.

    A record without a state of its own, or an approved one, that is in a merge of duplicates counts as
    `merge_pending`: `$in_merge` is not requested, but an answer may hold more than was requested.
    """
    answer = _decode(body, _Answer)
    states = ((record.id, _state(record)) for record in answer.data) if answer else ()
    return {key: state for key, state in states if state and isinstance(key, str) and RECORD_ID.fullmatch(key)}


def refused_scope(status: int, body: bytes) -> bool:
    """Return whether the token may not read the module, so that another probe with it would fail too."""
    answer = _decode(body, _Refusal)
    return answer is not None and (status, answer.code) in _SCOPE_REFUSALS


class _Record(msgspec.Struct):
    id: Any = None
    approval_state: Any = msgspec.field(name="$approval_state", default=None)
    in_merge: Any = msgspec.field(name="$in_merge", default=None)


class _Answer(msgspec.Struct):
    data: list[_Record] = []


class _Refusal(msgspec.Struct):
    code: str = ""


def _decode(body: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _state(record: _Record) -> str | None:
    state = harmless_state(record.approval_state)
    return "merge_pending" if record.in_merge is True and state in (None, "approved") else state


def _headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the headers that identify the caller, and `Accept` for JSON."""
    kept = ((name, value) for name, value in headers.items() if _is_forwarded(name))
    return (*kept, ("Accept", "application/json"))


def _is_forwarded(name: str) -> bool:
    lowered = name.lower()
    return lowered in _HEADERS or lowered.startswith(_HEADER_PREFIXES)


def _query(ids: Sequence[str]) -> str:
    # `approved` and `converted` disable filters that would hide the requested records.
    parameters = {
        "ids": ",".join(ids),
        "fields": "id,$approval_state",
        "approved": "both",
        "converted": "both",
        "per_page": "200",
    }
    return urlencode(parameters, safe=",$")


def _chunks(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    usable = [item for item in dict.fromkeys(ids) if RECORD_ID.fullmatch(item)]
    for start in range(0, len(usable), IDS_PER_PROBE):
        yield tuple(usable[start : start + IDS_PER_PROBE])
