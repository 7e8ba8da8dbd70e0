"""Which records a request names, and the request for some of them. Pure.

A *request index* is where a record stands in the request of the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_plus

from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.endpoints import Endpoint, IdsIn, Route, locate
from crm_guard._protocol.envelope import identifier
from crm_guard._protocol.json_spans import Span, elements, members, pick, splice

_QUERY_IDS: Final = re.compile(r"[?&]ids=([^&#]*)")
_COMMA: Final = re.compile(r",|%2C", re.IGNORECASE)
_Body = Callable[[], bytes | str | None]


@dataclass(frozen=True, slots=True)
class Part:
    """What a resend changes: None leaves that part of the request as it is."""

    url: str | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class CrmRequest:
    """One request, as far as its records go.

    Attributes:
        route: Endpoint and path.
        ids: One entry per request index, None where the request does not say (a row to upsert, an external id).
            None as a whole where the indexes cannot be told: a job, or a body that cannot be read.
        home: Where the ids stand: `body.data`, `body.ids`, `query.ids`, or nothing.
        reads: Indexes of the composite sub-requests that write nothing.
        narrower: Builds the request for some indexes.
    """

    route: Route
    ids: tuple[str | None, ...] | None
    home: str = ""
    reads: frozenset[int] = frozenset()
    narrower: Callable[[Sequence[int]], Part] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The row of the endpoint table."""
        return self.route.endpoint

    @property
    def container(self) -> str:
        """The name under which an answer's `json_path` points into the request's records."""
        return self.home.rpartition(".")[2]

    @property
    def ids_only(self) -> bool:
        """Whether the request holds bare ids, which CRM answers in any order."""
        return self.endpoint.ids_in is IdsIn.IDS

    @property
    def names_one(self) -> bool:
        """Whether the call is about one record, named in its path."""
        return self.endpoint.ids_in is IdsIn.PATH

    def narrow(self, indexes: Sequence[int]) -> Part:
        """Return what to change so that the request asks for `indexes` alone; nothing if these are all."""
        if self.narrower is None or self.ids is None or len(indexes) == len(self.ids):
            return Part()
        return self.narrower(indexes)


def read_request(method: str, address: CrmUrl, body: _Body, *, external: bool = False) -> CrmRequest:
    """Find the records that a request names.

    Args:
        method: HTTP method, upper case.
        address: The URL.
        body: Returns the body, or None if it cannot be read; called only where records stand in the body.
        external: Whether ids are values of an external field (`X-EXTERNAL`): no answer repeats these.
    """
    route = replace(locate(method, address.path), external=external)
    try:
        request = _READERS[route.endpoint.ids_in](route, address.url, body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or absurdly nested
        return CrmRequest(route, None)
    if external and request.ids is not None:
        return replace(request, ids=(None,) * len(request.ids))
    return request


def _read_path(route: Route, url: str, body: _Body) -> CrmRequest:  # noqa: ARG001 (one signature for all readers)
    return CrmRequest(route, (route.record_id,))


def _read_data(route: Route, url: str, body: _Body) -> CrmRequest:  # noqa: ARG001
    text, top = _object(body)
    rows = elements(text, top["data"].start) if "data" in top else None
    if rows is None:
        return CrmRequest(route, None)
    ids = tuple(identifier(row.value.get("id")) if isinstance(row.value, dict) else None for row in rows)
    return CrmRequest(route, ids, "body.data", narrower=_body_narrower(text, top["data"], rows))


def _read_ids(route: Route, url: str, body: _Body) -> CrmRequest:
    text, top = _object(body)
    if "cvid" in top or re.search(r"[?&]cvid=", url):
        return CrmRequest(route, None)  # a job: the answer tells of no single record
    if "ids" not in top:
        return _read_query_ids(route, url)
    # Which of two lists CRM goes by is not documented, and to narrow one alone may send the other again.
    return CrmRequest(route, None) if _QUERY_IDS.search(url) else _read_body_ids(route, text, top["ids"])


def _read_body_ids(route: Route, text: str, span: Span) -> CrmRequest:
    if isinstance(span.value, str):  # a JSON array inside a string (zoho/crm-oas v8.0, tags)
        inner = span.value
        found = elements(inner)
        if found is None:
            return CrmRequest(route, None)

        def narrow(indexes: Sequence[int]) -> Part:
            picked = json.dumps(pick(inner, found, indexes))
            return Part(body=splice(text, {(span.start, span.end): picked}).encode())

        return CrmRequest(route, _identifiers(found), "body.ids", narrower=narrow)
    spans = elements(text, span.start)
    if spans is None:
        return CrmRequest(route, None)
    return CrmRequest(route, _identifiers(spans), "body.ids", narrower=_body_narrower(text, span, spans))


def _read_query_ids(route: Route, url: str) -> CrmRequest:
    found = list(_QUERY_IDS.finditer(url))
    if len(found) != 1 or not found[0][1]:
        return CrmRequest(route, None)
    raw, comma = _COMMA.split(found[0][1]), _COMMA.search(found[0][1])

    def narrow(indexes: Sequence[int]) -> Part:
        picked = (comma[0] if comma else ",").join(raw[index] for index in indexes)
        return Part(url=splice(url, {found[0].span(1): picked}))

    return CrmRequest(
        route, tuple(unquote_plus(value).strip() or None for value in raw), "query.ids", narrower=narrow
    )


def _read_composite(route: Route, url: str, body: _Body) -> CrmRequest:  # noqa: ARG001
    _, top = _object(body)
    subs = top["__composite_requests"].value if "__composite_requests" in top else None
    if not isinstance(subs, list):
        return CrmRequest(route, None)
    routes = [_sub_route(sub) for sub in subs]
    ids = tuple(sub.record_id if sub else None for sub in routes)
    reads = frozenset(index for index, sub in enumerate(routes) if sub and sub.endpoint.reads)
    return CrmRequest(route, ids, reads=reads)


def _sub_route(sub: object) -> Route | None:
    if not isinstance(sub, Mapping):
        return None
    method, uri = sub.get("method"), sub.get("uri")
    if not isinstance(method, str) or not isinstance(uri, str):
        return None
    return locate(method.upper(), CrmUrl.of(uri).path)


def _object(body: _Body) -> tuple[str, dict[str, Span]]:
    """Return a request body as text, and its top level. The content type is not asked: many clients send none."""
    given = body() or ""
    text = given if isinstance(given, str) else given.decode()
    return text, (members(text) or {}) if text else {}


def _body_narrower(text: str, span: Span, found: Sequence[Span]) -> Callable[[Sequence[int]], Part]:
    def narrow(indexes: Sequence[int]) -> Part:
        return Part(body=splice(text, {(span.start, span.end): pick(text, found, indexes)}).encode())

    return narrow


def _identifiers(spans: Sequence[Span]) -> tuple[str | None, ...]:
    return tuple(identifier(span.value) for span in spans)


_READERS: Final[dict[IdsIn, Callable[[Route, str, _Body], CrmRequest]]] = {
    IdsIn.PATH: _read_path,
    IdsIn.BODY_DATA: _read_data,
    IdsIn.IDS: _read_ids,
    IdsIn.COMPOSITE: _read_composite,
}
