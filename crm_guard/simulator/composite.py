"""Several calls in one. ZOHO docs: composite-api."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .actions import not_supported
from .messages import (
    JSON_TYPE,
    Json,
    Reply,
    Request,
    RequestError,
    answer,
    bare,
    invalid_field,
    item,
    limit_exceeded,
)
from .routes import Kind, resolve

if TYPE_CHECKING:
    from .visit import Visit

MAX_SUBS = 5
_ERRORS_FROM = 400
_ALLOWED = frozenset(Kind) - {Kind.COMPOSITE, Kind.PHOTO_GET, Kind.PHOTO_POST}


def composite(visit: Visit) -> Reply:
    """POST /__composite_requests.

    Subs run one after the other, `parallel_execution` or not. Where a sub fails the whole answers 200 unless the
    others were rolled back, which answers 207: both statuses are guesses.
    """
    if visit.route.version < 3:
        raise RequestError(not_supported())
    subs = visit.rows("__composite_requests")
    if len(subs) > MAX_SUBS:
        raise RequestError(limit_exceeded("__composite_requests", MAX_SUBS))
    requests = [_sub_request(visit, sub, index) for index, sub in enumerate(subs)]
    undoes = visit.body.get("rollback_on_fail") is True
    return _undoable(visit, requests) if undoes else _independent(visit, requests)


def _independent(visit: Visit, requests: list[Request]) -> Reply:
    items = [_executed(visit.dispatch(request)) for request in requests]
    visit.notes.credits = 1
    return answer(200, {"__composite_requests": items})


def _undoable(visit: Visit, requests: list[Request]) -> Reply:
    """Run until one fails; then take back what went before."""
    checkpoint, notes = visit.store.checkpoint(), visit.notes
    items: list[Json] = []
    for request in requests:
        reply = visit.dispatch(request)
        items.append(_executed(reply))
        if reply.status >= _ERRORS_FROM:
            visit.store.rollback(checkpoint)
            for record_id in notes.refused:
                visit.store.records[record_id].refuse()
            notes.applied.clear()
            notes.credits = 1
            return answer(207, {"__composite_requests": _undone(items, len(requests))})
    visit.notes.credits = 2
    return answer(200, {"__composite_requests": items})


def _undone(items: list[Json], total: int) -> list[Json]:
    """Return the items of a rolled back composite: before, at, and after the sub that failed."""
    before = [item("ROLLBACK_PERFORMED", "rollback performed") for _ in items[:-1]]
    after = [item("PROCESSING_STOPPED", "processing stopped") for _ in range(total - len(items))]
    return [*before, items[-1], *after]


def _executed(reply: Reply) -> Json:
    response = {
        "headers": {"content-type": reply.headers.get("Content-Type", JSON_TYPE)},
        "body": reply.json(),
        "status_code": reply.status,
    }
    return item("SUCCESS", "composite sub request executed successfully", {"response": response})


def _sub_request(visit: Visit, sub: Json, position: int) -> Request:
    """Return a sub as a request of its own, its credentials those of the composite.

    Raises:
        RequestError: It is not allowed here, or asks for a higher version than the composite.
    """
    uri, method = sub.get("uri"), sub.get("method")
    if not isinstance(uri, str) or not isinstance(method, str):
        raise RequestError(invalid_field(f"__composite_requests[{position}].uri", "text"))
    path, _, query = uri.partition("?")
    params = sub.get("params")
    if isinstance(params, Mapping):
        query = "&".join(filter(None, (query, urlencode(params, errors="replace"))))
    route = resolve(method.upper(), path)
    if route.kind not in _ALLOWED or route.version > visit.route.version or _rows(sub) > 1:
        where = {"json_path": f"$.__composite_requests[{position}].uri", "api_name": "uri"}
        raise RequestError(bare(400, "NOT_ALLOWED", "the sub request is not allowed", where))
    body = b"" if sub.get("body") is None else json.dumps(sub["body"]).encode()
    headers = sub.get("headers")
    return Request(
        method=method.upper(),
        path=path,
        query=query,
        headers={name: str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {},
        body=body,
        connection=visit.request.connection,
    )


def _rows(sub: Json) -> int:
    body: Any = sub.get("body")
    rows = body.get("data") if isinstance(body, dict) else None
    return len(rows) if isinstance(rows, list) else 0
