"""What goes in and what comes out: plain HTTP values, the call log's entry, and the shapes of CRM's JSON.

Sources of the shapes, named in comments throughout this package: "SEED" is Zoho's forum announcement of the two
error codes (October 2020), "OAS" the examples in the zoho/crm-oas repository, "V7" the version 7 pages of the
API documentation. Where none of them says, the comment says "undocumented" and which guess was taken.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json: TypeAlias = dict[str, Any]

JSON_TYPE = "application/json;charset=UTF-8"
_SHOWN = 200  # characters of what a client sent, in an answer to it
_MAX_DEPTH = 100  # far beyond any subform, and far below what copying a value can stand


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request, as the engine wants it.

    Attributes:
        method: Upper case HTTP method.
        path: Path of the URL, still percent-encoded, without the query.
        query: Raw query string, without the question mark.
        headers: Header names (any case) to values.
        body: Whole body, already decoded from chunks.
        connection: Number of the TCP connection, from 1; 0 for calls made in process.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    connection: int = 0

    def header(self, name: str) -> str | None:
        """Return the value of the header `name` in any case, or `None`."""
        return _header(self.headers, name)

    def param(self, name: str) -> str | None:
        """Return the decoded query parameter `name`, several joined by commas, or `None`."""
        values = parse_qs(self.query, keep_blank_values=True).get(name)
        return None if values is None else ",".join(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP answer, and how it is to be delivered.

    Attributes:
        status: HTTP status.
        headers: Header names to values, without `Content-Length`.
        body: Whole body, not compressed.
        delivery: `"whole"`; or what a fault does to the connection: `"reset"` (TCP RST, no answer), `"drop"`
            (closed, no answer), `"truncated"` (full `Content-Length`, half of the bytes, then closed).
        delay: Seconds that the call stays in service before its answer leaves.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delivery: str = "whole"
    delay: float = 0.0

    def json(self) -> Any:
        """Return the decoded JSON body; `None` for an empty one."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One entry of the call log.

    Attributes:
        at: Instant of arrival, in seconds on the simulator's clock.
        method: HTTP method.
        path: Percent-encoded path.
        query: Raw query string.
        headers: Request headers as sent.
        body: Request body.
        status: HTTP status of the answer; 0 when a fault let none out.
        record_ids: Records that the request named, as ids, in the order of the request.
        applied_ids: Records to which a write was applied, once per write.
        refused_ids: Records refused because of their state.
        connection: Number of the TCP connection, from 1; 0 for calls made in process.
        response_body: Answer before any compression; empty when there was none.
        fault: Kind of the fault that hit this call, or `None`.
        credits: API credits that the call cost.
    """

    at: float
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    record_ids: tuple[str, ...]
    applied_ids: tuple[str, ...]
    refused_ids: tuple[str, ...]
    connection: int
    response_body: bytes
    fault: str | None = None
    credits: int = 0

    def header(self, name: str) -> str | None:
        """Return the request header `name` in any case, or `None`."""
        return _header(self.headers, name)

    @property
    def size(self) -> int:
        """Bytes that the log keeps for this call: bodies, path, query and headers."""
        texts = (self.path, self.query, *self.headers, *self.headers.values())
        return len(self.body) + len(self.response_body) + sum(map(len, texts))

    @property
    def url(self) -> str:
        """Path and query, as one string."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def json(self) -> Any:
        """Return the decoded request body; `None` for an empty one.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body) if self.body else None


def _header(headers: Mapping[str, str], name: str) -> str | None:
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), None)


class RequestError(Exception):
    """The request as a whole is answered with `reply`, whatever its records are."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def read_json(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is no JSON, holds a number that is not finite, or is nested more than 100 levels deep.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        containers = [entry.values() if isinstance(entry, dict) else entry for entry in level if _contains(entry)]
        if not containers:
            return value
        level = [entry for container in containers for entry in container]
    msg = "nested too deeply"
    raise ValueError(msg)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = f"the number {text[:_SHOWN]} is not finite"
        raise ValueError(msg)
    return number


def _contains(value: object) -> bool:
    return isinstance(value, (dict, list))


def answer(status: int, payload: Json, **headers: str) -> Reply:
    """Return `payload` as compact JSON, the way CRM sends it.

    What Python lets into a record and is no JSON is shown as null, if a number, or as a question mark.
    """
    try:
        text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        plain = json.loads(json.dumps(payload), parse_constant=lambda _name: None)
        text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False)
    body = text.encode(errors="replace")
    return Reply(status=status, headers={"Content-Type": JSON_TYPE, **headers}, body=body)


def item(code: str, message: str, details: Json | None = None, **extra: Any) -> Json:
    """Return one result item; its status is `success` for SUCCESS and SCHEDULED, else `error`."""
    status = "success" if code in ("SUCCESS", "SCHEDULED") else "error"
    return {"code": code, "details": details or {}, "message": message, "status": status, **extra}


def succeeded(result: Json) -> bool:
    """Return whether a result item reports success."""
    return result.get("status") == "success"


def bare(status: int, code: str, message: str, details: Json | None = None, **headers: str) -> Reply:
    """Return an answer that is one item without an envelope."""
    return answer(status, item(code, message, details), **headers)


def bad_request(code: str, message: str, **details: Any) -> Reply:
    """Return a refusal with status 400."""
    return bare(400, code, message, details)


def batch_status(items: Sequence[Json], *, success: int = 200, mixed: int = 207, sandbox: bool = False) -> int:
    """Return the HTTP status of a batch: all applied, some, or none (ZOHO docs: status-codes).

    Sandboxes answer 200 where production answers 207 (zoho/embeddedApp-js-sdk issue 14).
    """
    applied = sum(map(succeeded, items))
    if applied == len(items):
        return success
    if applied:
        return success if sandbox else mixed
    # V7 update-records: If-Unmodified-Since answers 412. For a batch in which only some items carry that
    # code the status is undocumented; 400 is the guess.
    return 412 if all(entry["code"] == "ALREADY_MODIFIED" for entry in items) else 400


def invalid_url(method: str, path: str) -> Reply:
    """Return the answer to an address that CRM does not know, or that the simulator does not serve."""
    message = "Please check if the URL trying to access is a correct one"
    return bare(404, "INVALID_URL_PATTERN", f"{message}; {not_simulated(method, path)}")


def wrong_method(method: str = "", path: str = "") -> Reply:
    """Return the answer to a method that the address does not take.

    With `method` and `path` it says that the simulator does not serve it; without, that CRM does not take it.
    OAS (related records): the status is 400.
    """
    message = "The http request method type is not a valid one"
    note = f"; {not_simulated(method, path)}" if method else ""
    return bare(400, "INVALID_REQUEST_METHOD", message + note)


def not_simulated(*what: str) -> str:
    """Return the words that tell what CRM may well know, but the simulator does not."""
    return f"not simulated: {' '.join(what)[:_SHOWN]}"


def missing_param(name: str) -> Reply:
    """Return the answer to a request without a mandatory query parameter."""
    message = "One of the expected parameter is missing"
    return bare(400, "REQUIRED_PARAM_MISSING", message, {"param_name": name})


def missing_field(name: str) -> Reply:
    """Return the answer to a body without a mandatory key."""
    where = {"api_name": name, "json_path": f"$.{name}"}
    return bare(400, "MANDATORY_NOT_FOUND", "required field not found", where)


def invalid_field(name: str, expected: str) -> Reply:
    """Return the answer to a body whose key `name` holds the wrong type."""
    where = {"expected_data_type": expected, "api_name": name, "json_path": f"$.{name}"}
    return bare(400, "INVALID_DATA", "invalid data", where)


def too_many_rows(limit: int) -> Reply:
    """Return the answer to an update of more rows than `limit` (OAS: updateRecords, updateRecord)."""
    message = "count of records in your request exceeds the limit"
    problem = item("LIMIT_EXCEEDED", message, {"maximum_length": limit, "api_name": "data"})
    return answer(400, {"data": [problem]})


def too_long(name: str, limit: int) -> Reply:
    """Return the answer to a body whose array `name` has more than `limit` elements.

    OAS prints it for shares, territories and composites; of the errors that it lists for create and upsert this is
    the one about a length.
    """
    where = {"maximum_length": limit, "api_name": name, "json_path": f"$.{name}"}
    return bare(400, "INVALID_DATA", "invalid data", where)


def limit_exceeded(name: str, limit: int) -> Reply:
    """Return the answer to a request that names too many records by `ids`.

    The message is OAS's (related records, delete); the keys of `details` are undocumented.
    """
    message = f"You cannot give more than {limit} record ids"
    return bare(400, "LIMIT_EXCEEDED", message, {"api_name": name, "limit": limit})


def invalid_token() -> Reply:
    """Return the answer to a missing, unknown or expired access token."""
    return bare(401, "INVALID_TOKEN", "invalid oauth token")


def scope_mismatch() -> Reply:
    """Return the answer to a token that lacks a scope."""
    return bare(401, "OAUTH_SCOPE_MISMATCH", "Unauthorized")


def unreadable_body() -> Reply:
    """Return the answer to a request whose body has no certain end. Undocumented."""
    return bare(400, "INVALID_REQUEST", "the body of the request cannot be read")


def body_too_large(limit: int) -> Reply:
    """Return the answer to a request whose body is larger than `limit` bytes. Undocumented but for the status."""
    return bare(413, "REQUEST_ENTITY_TOO_LARGE", "the body of the request is too large", {"limit": limit})


def too_many_requests(retry_after: float | None = None) -> Reply:
    """Return 429; with `retry_after` seconds both as a header (rounded up) and in `details`."""
    message = "too many requests. please try again after some time"
    if retry_after is None:
        return bare(429, "TOO_MANY_REQUESTS", message)
    headers = {"Retry-After": str(-int(-retry_after // 1))}
    return bare(429, "TOO_MANY_REQUESTS", message, {"retry_after": retry_after}, **headers)
