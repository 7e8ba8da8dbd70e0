"""The sub-requests of a composite, checked before any of them runs. OAS: `composite_requests`. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .messages import Json, Request, RequestError, answer, item, not_simulated
from .references import BrokenReferenceError, Reference, masked, references
from .routes import Kind, resolve
from .sub_reads import LIMITED, MOST, asks_too_much

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .routes import Route

_URI = "/crm(/.*)?/v[0-9]+([.][0-9]+)?/.*"
_ID = "[a-zA-Z0-9][a-zA-Z0-9_]*"
_LONGEST: Mapping[str, int] = {"uri": 2048, "sub_request_id": 100}
MAX_REFERENCES = 1000
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
        references: All references that it makes.
    """

    index: int
    id: str
    method: str
    uri: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    references: tuple[Reference, ...] = ()

    @property
    def where(self) -> str:
        """Its JSON path."""
        return f"$.__composite_requests[{self.index}]"

    def request(self, connection: int) -> Request:
        """Return it as a request of its own, its credentials those of the composite."""
        path, _, query = self.uri.partition("?")
        if self.params:
            query = "&".join(filter(None, (query, urlencode(self.params, errors="replace"))))
        return Request(
            method=self.method,
            path=path,
            query=query,
            headers={name: str(value) for name, value in self.headers.items()},
            body=b"" if self.body is None else json.dumps(self.body).encode(),
            connection=connection,
        )


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
    subs = _with_references([_sub(row, index) for index, row in enumerate(rows)])
    _raise_any([_repeated(sub, subs) or refused(sub, version) or _unknown_reference(sub, subs) for sub in subs])
    return _in_order(subs)


def _with_references(subs: Sequence[Sub]) -> list[Sub]:
    """Return the subs with the references that they make.

    Raises:
        RequestError: There are more than anyone means: they cost time under the engine's mutex.
    """
    left, found = MAX_REFERENCES, []
    for sub in subs:
        made = tuple(islice(_references(sub), left + 1))
        if len(made) > left:
            where = {"api_name": made[-1].where.rpartition(".")[2], "json_path": made[-1].where}
            message = f"invalid data; {not_simulated('more than', str(MAX_REFERENCES), 'references')}"
            _raise_any([item("INVALID_DATA", message, where)])
        left -= len(made)
        found.append(replace(sub, references=made))
    return found


def _references(sub: Sub) -> Iterator[Reference]:
    parts = {"uri": sub.uri, "params": sub.params, "headers": sub.headers, "body": sub.body}
    return chain.from_iterable(references(value, f"{sub.where}.{key}") for key, value in parts.items())


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
    for key, longest in _LONGEST.items():
        if len(row.get(key) or "") > longest:
            return _problem("INVALID_DATA", "invalid data", key, where, maximum_length=longest)
    for key in ("headers", "params"):
        if not isinstance(row.get(key) or {}, dict):
            return _problem("INVALID_DATA", "invalid data", key, where, expected_data_type="jsonobject")
    return _restricted_headers(row, where)


def _restricted_headers(row: Json, where: str) -> Json | None:
    restricted = [name for name in row.get("headers") or {} if name.lower() in _RESTRICTED_HEADERS]
    if not restricted:
        return None
    # The keys of `details` are documented, the code is not.
    return _problem("INVALID_DATA", "invalid data", "headers", where, restricted_headers=restricted)


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
    route = route_of(sub)
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
    return _reads_too_much(sub, route)


def _reads_too_much(sub: Sub, route: Route) -> Json | None:
    key = asks_too_much(sub.request(0), route.kind) if route.kind in LIMITED else None
    if key is None:
        return None
    place = "body" if key == "select_query" else "params"
    if place == "params" and key not in sub.params:
        where = {"api_name": key, "json_path": f"{sub.where}.uri"}
        return item("INVALID_DATA", "invalid data", {"maximum_length": MOST, **where})
    return _problem("INVALID_DATA", "invalid data", key, f"{sub.where}.{place}", maximum_length=MOST)


def route_of(sub: Sub) -> Route | None:
    """Return what a sub-request addresses, as far as its references leave that open; `None` if CRM knows it not."""
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
