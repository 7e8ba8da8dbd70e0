"""The sub-requests of a composite, checked before any of them runs. OAS: `composite_requests`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .messages import Json, RequestError, answer, item
from .references import BrokenReferenceError, Reference, masked, references
from .routes import Kind, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .routes import Route

_URI = "/crm(/.*)?/v[0-9]+([.][0-9]+)?/.*"
_ID = "[a-zA-Z0-9][a-zA-Z0-9_]*"
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
_RESTRICTED_HEADERS = ("authorization", "x-crm-org")
_ONE_ROW = frozenset({Kind.CREATE, Kind.UPDATE, Kind.UPDATE_ONE, Kind.UPSERT})
# What the table of allowed APIs lacks, of the calls that the simulator serves.
_REFUSED = frozenset(
    {
        Kind.COMPOSITE,
        Kind.TOKEN,
        Kind.DELETE,
        Kind.ADD_TAGS,
        Kind.REMOVE_TAGS,
        Kind.SHARE,
        Kind.SHARE_CHANGE,
        Kind.SHARE_REVOKE,
        Kind.MASS_UPDATE,
        Kind.MASS_DELETE,
        Kind.MASS_CONVERT,
        Kind.CHANGE_OWNER,
        Kind.CHANGE_OWNER_ONE,
        Kind.INVENTORY_CONVERT,
        Kind.CONVERSION_OPTIONS,
        Kind.PHOTO_GET,
        Kind.PHOTO_POST,
        Kind.PORTAL_INVITE,
        Kind.ASSIGN_TERRITORIES,
        Kind.REMOVE_TERRITORIES,
        Kind.ASSIGN_TERRITORIES_ONE,
        Kind.REMOVE_TERRITORIES_ONE,
        Kind.SEND_MAIL,
        Kind.CLONE,
        Kind.LOCKS,
        Kind.LOCK_READ,
        Kind.LOCK,
        Kind.LOCK_CHANGE,
        Kind.UNLOCK,
    }
)
# Those of the table that the simulator serves; how CRM names them in an answer is undocumented.
_ALLOWED_SERVICES = (
    "Get Org",
    "Get Metadata",
    "Get Users",
    "Get Records",
    "Search Records",
    "Get Records' Count",
    "Get Related Records",
    "Get records through a COQL query",
    "Create Records",
    "Update Records",
    "Upsert Records",
    "Delete Records",
    "Convert a Lead",
    "Update Blueprint",
    "Add Tags for a record",
    "Remove Tags for a record",
    "Delete Photo",
    "Get Shared Record Details",
)


@dataclass(frozen=True, slots=True)
class Sub:
    """One sub-request that may be sent.

    Attributes:
        index: Its place in the composite, from 0.
        id: Its `sub_request_id`, or empty.
        method: HTTP method, upper case.
        uri: Path and query, with its references.
        params: Further query parameters.
        headers: Its headers.
        body: Its body, or `None`.
    """

    index: int
    id: str
    method: str
    uri: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None

    @property
    def where(self) -> str:
        """Its JSON path."""
        return f"$.__composite_requests[{self.index}]"

    @property
    def references(self) -> list[Reference]:
        """All references that it makes."""
        parts = {"uri": self.uri, "params": self.params, "headers": self.headers, "body": self.body}
        return [found for key, value in parts.items() for found in references(value, f"{self.where}.{key}")]


def checked_subs(rows: Sequence[Json], version: float) -> list[Sub]:
    """Return the sub-requests in an order in which each follows those that it refers to.

    Args:
        rows: The elements of `__composite_requests`.
        version: API version of the composite.

    Raises:
        RequestError: One of them cannot be sent; the answer holds an item about each of these.
    """
    problems = [_malformed(row, index) for index, row in enumerate(rows)]
    _raise_any(problems)
    subs = [_sub(row, index) for index, row in enumerate(rows)]
    _raise_any([_repeated(sub, subs) or refused(sub, version) or _unknown_reference(sub, subs) for sub in subs])
    return _in_order(subs)


def _raise_any(problems: Sequence[Json | None]) -> None:
    found = [problem for problem in problems if problem is not None]
    if found:
        raise RequestError(answer(400, {"__composite_requests": found}))


def _malformed(row: Json, index: int) -> Json | None:
    """Return the item about the first key of a sub-request that is missing or has the wrong form."""
    where = f"$.__composite_requests[{index}]"
    for key in ("method", "uri"):
        if key not in row:
            return _problem("MANDATORY_NOT_FOUND", "required field not found", key, where)
    if not isinstance(row["method"], str) or row["method"].upper() not in _METHODS:
        return _problem("INVALID_DATA", "invalid data", "method", where, regex="|".join(_METHODS))
    if not isinstance(row["uri"], str) or not re.fullmatch(_URI, row["uri"]):
        return _problem("INVALID_DATA", "invalid data", "uri", where, expected_data_type="text", regex=_URI)
    number = row.get("sub_request_id")
    if number is not None and not (isinstance(number, str) and re.fullmatch(_ID, number)):
        kind = {"expected_data_type": "text", "regex": _ID}
        return _problem("INVALID_DATA", "invalid data", "sub_request_id", where, **kind)
    for key in ("headers", "params"):
        if not isinstance(row.get(key) or {}, dict):
            return _problem("INVALID_DATA", "invalid data", key, where, expected_data_type="jsonobject")
    restricted = [name for name in row.get("headers") or {} if name.lower() in _RESTRICTED_HEADERS]
    if restricted:
        # The keys of `details` are documented, the code is not.
        return _problem("INVALID_DATA", "invalid data", "headers", where, restricted_headers=restricted)
    return None


def _problem(code: str, message: str, key: str, where: str, **details: Any) -> Json:
    return item(code, message, {**details, "api_name": key, "json_path": f"{where}.{key}"})


def _sub(row: Json, index: int) -> Sub:
    return Sub(
        index=index,
        id=row.get("sub_request_id") or "",
        method=row["method"].upper(),
        uri=row["uri"],
        params=row.get("params") or {},
        headers=row.get("headers") or {},
        body=row.get("body"),
    )


def _repeated(sub: Sub, subs: Sequence[Sub]) -> Json | None:
    if sub.id and any(other.id == sub.id for other in subs[: sub.index]):
        return _problem("DUPLICATE_DATA", "duplicate data", "sub_request_id", sub.where)
    return None


def refused(sub: Sub, version: float) -> Json | None:
    """Return the item about a call that is not allowed in such a composite. The texts are undocumented."""
    route = _route(sub)
    if route is None:  # it has its own answer to that address or method
        return None
    if route.kind in _REFUSED:
        details = {"allowed_services": list(_ALLOWED_SERVICES)}
        return item("NOT_SUPPORTED", "the sub request is not supported in a composite request", details)
    if route.version > version:
        asked = {"sub_request_version": _number(route.version), "composite_request_version": _number(version)}
        return item("NOT_SUPPORTED", "the version of the sub request is not supported", asked)
    rows = sub.body.get("data") if isinstance(sub.body, dict) else None
    if route.kind in _ONE_ROW and isinstance(rows, list) and len(rows) > 1:
        return _problem("INVALID_DATA", "invalid data", "data", f"{sub.where}.body", maximum_length=1)
    return None


def _route(sub: Sub) -> Route | None:
    try:
        return resolve(sub.method, masked(sub.uri).partition("?")[0])
    except RequestError:
        return None


def _number(version: float) -> float:
    return int(version) if version.is_integer() else version


def _unknown_reference(sub: Sub, subs: Sequence[Sub]) -> Json | None:
    """Return the item about a reference that is malformed or names no sub-request."""
    known = {other.id for other in subs if other.id}
    wrong = next((found for found in sub.references if found.sub not in known), None)
    return None if wrong is None else BrokenReferenceError(wrong.text, wrong.where).item()


def _in_order(subs: Sequence[Sub]) -> list[Sub]:
    """Return the subs so that none precedes one that it refers to, else as they were given.

    Raises:
        RequestError: Some of them refer to each other in a circle.
    """
    needs = {sub.index: {found.sub for found in sub.references} for sub in subs}
    ordered: list[Sub] = []
    waiting = list(subs)
    while waiting:
        done = {sub.id for sub in ordered}
        ready = next((sub for sub in waiting if needs[sub.index] <= done), None)
        if ready is None:
            indexes = [sub.index for sub in waiting]
            found = waiting[0].references[0]
            details = {"api_name": found.where.rpartition(".")[2], "json_path": found.where}
            problem = item("LOOPING_FOUND", "looping found", {**details, "sub_request_indexes": indexes})
            raise RequestError(answer(400, {"__composite_requests": [problem]}))
        waiting.remove(ready)
        ordered.append(ready)
    return ordered
