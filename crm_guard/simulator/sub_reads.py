"""How many records a sub-request of a composite may read: 25 (OAS: `composite_requests`, the allowed APIs). Pure.

What CRM answers to one that asks for more is undocumented, as is what one gets that names no number, where the
usual one is 200. Here the first is refused like a write of too many records, and the second gets 25.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from .coql_grammar import DEFAULT_LIMIT, parse
from .messages import RequestError, read_json
from .routes import Kind

if TYPE_CHECKING:
    from .messages import Reply, Request

MOST = 25
_PER_PAGE = "per_page"
_PAGED = frozenset({Kind.LIST, Kind.SEARCH, Kind.RELATED, Kind.USERS})
LIMITED = _PAGED | {Kind.COQL}
_ANY_LIMIT = 10**9


def asks_too_much(request: Request, kind: Kind) -> str | None:
    """Return the name of what asks for more records than one may read, or `None`."""
    if kind is Kind.COQL and _limit_is_above(request.body):
        return "select_query"
    asked = request.param(_PER_PAGE) or ""
    # What is no number at all gets the answer that it would get outside.
    above = asked.isdecimal() and (len(asked) > len(str(_ANY_LIMIT)) or int(asked) > MOST)
    return _PER_PAGE if kind in _PAGED and above else None


def paged(request: Request, kind: Kind) -> Request:
    """Return a request that names no number of records as one for as many as it may read."""
    if kind not in _PAGED or request.param(_PER_PAGE) is not None:
        return request
    return replace(request, query="&".join(filter(None, (request.query, f"{_PER_PAGE}={MOST}"))))


def cut(reply: Reply, kind: Kind) -> Reply:
    """Return the answer to a query without a limit with as many rows as one may read."""
    body = reply.json() if kind is Kind.COQL else None
    if not body or len(body.get("data", ())) <= MOST:
        return reply
    info = {**body["info"], "count": MOST, "more_records": True}
    return replace(reply, body=json.dumps({**body, "data": body["data"][:MOST], "info": info}).encode())


def _limit_is_above(body: bytes) -> bool:
    """Return whether a query has a limit that is too high; one that is wrong otherwise has not.

    The usual limit counts as none: a query that names it is answered like one without.
    """
    try:
        limit = parse(read_json(body)["select_query"], _ANY_LIMIT).limit
    except (RequestError, ValueError, TypeError, LookupError):
        return False
    return limit > MOST and limit != DEFAULT_LIMIT
