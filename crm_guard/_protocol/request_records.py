"""Which records a request names, which of these an answer speaks of, and the request for some of them. Pure.

A *position* is the index of a record in the request; a *place* is the index of a record in what was last sent,
which may be fewer. An answer is believed only where each item can be laid on one place without doubt: see
:func:`match`. CRM documents the order of an answer for updates and creates alone (zoho/crm-oas v8.0), and prints a
mass delete that is out of order, so ids come before order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_plus

from crm_guard._protocol.address import tail_of
from crm_guard._protocol.endpoints import Endpoint, IdsIn, Route, locate
from crm_guard._protocol.envelope import Envelope, Item, identifier
from crm_guard._protocol.json_spans import Span, elements, members, pick, splice

_QUERY_IDS: Final = re.compile(r"[?&]ids=([^&#]*)")
_COMMA: Final = re.compile(r",|%2C", re.IGNORECASE)
_JSON_PATH: Final = re.compile(r"\$\.(data|ids)\[(\d{1,6})\]")
_MOST_NESTED: Final = 4  # CRM nests errors once; each level is read anew, so their number has to be small
_Body = Callable[[], bytes | None]


@dataclass(frozen=True, slots=True)
class Part:
    """What a resend changes: None leaves that part of the request as it is."""

    url: str | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as its records go.

    Attributes:
        route: Endpoint and path.
        ids: One entry per position, None where the request does not say (a row to upsert, an external id).
            None as a whole where the positions cannot be told: a job, or a body that cannot be read.
        home: Where the ids stand: `body.data`, `body.ids`, `query.ids`, or nothing.
        reads: Indexes of the composite sub-requests that write nothing.
        narrower: Builds the request for some positions.
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
    def alike(self) -> bool:
        """Whether positions are bare ids, which CRM answers in any order."""
        return self.endpoint.ids_in is IdsIn.IDS

    @property
    def names_one(self) -> bool:
        """Whether the call is about one record, named in its path."""
        return self.endpoint.ids_in is IdsIn.PATH

    def narrow(self, positions: Sequence[int]) -> Part:
        """Return what to change so that the request asks for `positions` alone; nothing if these are all."""
        if self.narrower is None or self.ids is None or len(positions) == len(self.ids):
            return Part()
        return self.narrower(positions)


def read_call(
    method: str, url: str, start: int, body: Callable[[], bytes | None], *, external: bool = False
) -> Call:
    """Find the records that a request names.

    Args:
        method: HTTP method, upper case.
        url: The whole URL.
        start: Where in `url` the part behind the version begins.
        body: Returns the body, or None if it cannot be had; called only where records stand in the body.
        external: Whether ids are values of an external field (`X-EXTERNAL`): no answer repeats these.
    """
    route = replace(locate(method, re.split(r"[?#]", url[start:], maxsplit=1)[0]), external=external)
    try:
        call = _READERS[route.endpoint.ids_in](route, url, body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or absurdly nested
        return Call(route, None)
    if external and call.ids is not None:
        return replace(call, ids=(None,) * len(call.ids))
    return call


def match(
    items: Sequence[Item],
    sent: Sequence[str | None],
    *,
    container: str = "data",
    alike: bool = False,
    ordered: bool = True,
) -> list[int | None] | None:
    """Lay each item of an answer on one place of what was sent.

    An item that names its record (`details.id`, or `$.data[i]` in `details.json_path`) belongs there. The others
    keep their own place if all named ones do; else they take the places that are left if it cannot matter which.
    Linear in the items.

    Args:
        items: The answer.
        sent: The ids sent, in order; None where unknown.
        container: The name of the request's list, to which a `json_path` must point.
        alike: Whether positions are bare ids: two with one id are the same request, so either may be meant.
        ordered: Whether the answer is documented to be in the order of the request.

    Returns:
        A place per item, None for items whose place is not certain. None as a whole if in doubt: counts differ, an
        id was never asked for, two items claim one place, an item names two, or stands where another was sent.
    """
    if len(items) != len(sent):
        return None
    table = _Places(sent, container)
    if not all(table.claim(index, item) for index, item in enumerate(items)):
        return None
    if not table.in_order and not alike and not table.distinct:
        return None
    places = table.filled(ordered=ordered)
    return places if all(_fits(item, sent, place) for item, place in zip(items, places, strict=True)) else None


def _fits(item: Item, sent: Sequence[str | None], place: int | None) -> bool:
    """Tell whether an item may be about what was sent at its place: CRM did something there to no other record."""
    if place is None or not (item.succeeded or item.guarded):
        return True
    return item.record_id is None or sent[place] in {None, item.record_id}


class _Places:
    """The places of what was sent, while the items of the answer claim theirs."""

    def __init__(self, sent: Sequence[str | None], container: str) -> None:
        self._sent = sent
        self._container = container
        self._complete = None not in sent
        self._homes: dict[str, list[int]] = {}  # the first place last: it goes once it is taken
        for place in reversed(range(len(sent))):
            if record_id := sent[place]:
                self._homes.setdefault(record_id, []).append(place)
        self.distinct = self._complete and len(self._homes) == len(sent)
        self._strangers = False
        self._taken: dict[int, int] = {}
        self._places: list[int | None] = []
        self._raw: list[bytes] = []
        self._count = len(sent)

    def claim(self, index: int, item: Item) -> bool:
        """Note the place that `item` names, if it names one; tell whether that can be."""
        at = pointed(item, self._container, self._count)
        record_id = item.record_id or ""
        homes = self._homes.get(record_id)
        if record_id and homes is None and self._complete and (item.succeeded or item.guarded):
            return False  # an id that was never asked for
        self._strangers |= bool(record_id) and homes is None
        place = at if homes is None else self._choose(record_id, index, at)
        if place is None and homes is not None:
            return False
        if place is not None and self._taken.setdefault(place, index) != index:
            return False
        self._places.append(place)
        self._raw.append(item.raw)
        return True

    def _choose(self, record_id: str, index: int, at: int | None) -> int | None:
        """Return a place of the record that is free: the one pointed to, else the item's own, else the first."""
        wish = index if at is None else at
        if self._sent[wish] == record_id and wish not in self._taken:
            return wish
        if at is not None:
            return None
        homes = self._homes[record_id]
        while homes and homes[-1] in self._taken:  # none is ever given back, so each is passed over once
            homes.pop()
        return homes[-1] if homes else None

    @property
    def in_order(self) -> bool:
        """Whether every item that names its place is there already."""
        return all(place in (None, index) for index, place in enumerate(self._places))

    def filled(self, *, ordered: bool) -> list[int | None]:
        """Return the places, with those added that order or elimination make certain.

        Where the order is not documented, records under names that were not sent (ids for external values) may
        stand in any.
        """
        if self.in_order and (ordered or not self._strangers):
            return list(range(self._count))
        unnamed = [index for index, place in enumerate(self._places) if place is None]
        if len({self._raw[index] for index in unnamed}) == 1:  # one, or several that say the same
            left = sorted(set(range(self._count)) - self._taken.keys())
            for index, place in zip(unnamed, left, strict=True):
                self._places[index] = place
        return self._places


def match_named(items: Sequence[Item], sent: Sequence[str | None]) -> dict[int, Item]:
    """Return the items that name, by an id that was sent once, a place that no other item names: place to item."""
    sent_once, named_once = Counter(sent), Counter(item.record_id for item in items)
    by_id = {item.record_id: item for item in items if item.record_id and named_once[item.record_id] == 1}
    return {
        place: by_id[record_id]
        for place, record_id in enumerate(sent)
        if record_id in by_id and sent_once[record_id] == 1
    }


def lay(call: Call, envelope: Envelope) -> list[int | None] | None:
    """Lay the items of an answer on the positions of the request, as `match` does; None where that cannot be."""
    if call.ids is None or call.names_one or envelope.composite or (envelope.bare and len(call.ids) > 1):
        return None
    if envelope.key == "tags":  # these items speak of the tags (zoho/crm-oas v8.0, tag input errors)
        return None
    return match(
        envelope.items, call.ids, container=call.container, alike=call.alike, ordered=call.endpoint.ordered
    )


def records(call: Call, envelope: Envelope, laid: Sequence[int | None] | None) -> list[str | None]:
    """Return the record that each item speaks of, None where that is not certain.

    Args:
        call: The request.
        envelope: The answer.
        laid: The places of the items, as `lay` found them: an item that names no record is where the others leave
            room, not where it stands in the answer. None: without such help.
    """
    if laid is None or call.ids is None:
        return [resolve(call, envelope, index)[0] for index, _ in enumerate(envelope.items)]
    sent = [None if place is None else call.ids[place] for place in laid]
    return [item.record_id or record_id for item, record_id in zip(envelope.items, sent, strict=True)]


def resolve(call: Call, envelope: Envelope, index: int) -> tuple[str | None, str]:
    """Find the record that an item speaks of.

    Returns:
        The record id or None, and where it was found.
    """
    item, ids = envelope.items[index], call.ids or ()
    if item.record_id:
        source = "details.id" if identifier(item.details.get("id")) else "details.record_id"
        return item.record_id, source if item.sub is None else f"sub[{item.sub}].{source}"
    if item.sub is not None:
        return (ids[item.sub], f"sub[{item.sub}].path") if item.sub < len(ids) and ids[item.sub] else (None, "none")
    place = None if call.names_one else pointed(item, call.container, len(ids))
    if place is not None and ids[place]:
        return ids[place], f"json_path->{_source(call, place)}"
    if found := call.route.record_at(item.details.get("resource_path_index")):
        return found, "resource_path_index->path[1]"
    if call.route.record_id:
        return call.route.record_id, "path[1]"
    if not envelope.bare and not call.names_one and len(ids) == len(envelope.items) and ids[index]:
        return ids[index], f"position->{_source(call, index)}"
    return None, "none"


def repointed(item: Item, container: str, place: int, position: int) -> Item:
    """Return an item with its `json_path` pointing to `position`, where CRM's points to `place` in a resend."""
    if place == position or b'"json_path"' not in item.raw:
        return item
    text = item.raw.decode()
    wrong, right = f"$.{container}[{place}]", f"$.{container}[{position}]"
    try:
        stretches = {
            (span.start, span.end): json.dumps(right + span.value.removeprefix(wrong))
            for span in _json_paths(text, 0, _MOST_NESTED)
            if isinstance(span.value, str) and span.value.startswith(wrong)
        }
    except (ValueError, RecursionError):
        return item
    return item.reread(splice(text, stretches).encode())


def _json_paths(text: str, start: int, depth: int) -> Iterator[Span]:
    """Yield the `json_path` of the item at `start`, and of the errors in it, `depth` levels deep."""
    top = members(text, start) or {}
    details = (members(text, top["details"].start) if "details" in top else None) or {}
    if "json_path" in details:
        yield details["json_path"]
    if "errors" not in details or not depth:
        return
    for error in elements(text, details["errors"].start) or ():
        yield from _json_paths(text, error.start, depth - 1)


def _source(call: Call, index: int) -> str:
    return f"{call.home}[{index}]{'.id' if call.container == 'data' else ''}"


def pointed(item: Item, container: str, count: int) -> int | None:
    """Return the place that an item's `json_path` points to; `[*]`, other lists and other ends are no place."""
    path = item.details.get("json_path")
    found = _JSON_PATH.match(path) if isinstance(path, str) else None
    return int(found[2]) if found and found[1] == container and int(found[2]) < count else None


def _read_path(route: Route, url: str, body: _Body) -> Call:  # noqa: ARG001 (one signature for all readers)
    return Call(route, (route.record_id,))


def _read_data(route: Route, url: str, body: _Body) -> Call:  # noqa: ARG001
    text, top = _object(body)
    rows = elements(text, top["data"].start) if "data" in top else None
    if rows is None:
        return Call(route, None)
    ids = tuple(identifier(row.value.get("id")) if isinstance(row.value, dict) else None for row in rows)
    return Call(route, ids, "body.data", narrower=_body_narrower(text, top["data"], rows))


def _read_ids(route: Route, url: str, body: _Body) -> Call:
    text, top = _object(body)
    if "cvid" in top or re.search(r"[?&]cvid=", url):
        return Call(route, None)  # a job: the answer says nothing of single records
    if "ids" not in top:
        return _read_query_ids(route, url)
    # Which of two lists CRM goes by is not documented, and to narrow one alone may send the other again.
    return Call(route, None) if _QUERY_IDS.search(url) else _read_body_ids(route, text, top["ids"])


def _read_body_ids(route: Route, text: str, span: Span) -> Call:
    if isinstance(span.value, str):  # a JSON array inside a string (zoho/crm-oas v8.0, tags)
        inner = span.value
        found = elements(inner)
        if found is None:
            return Call(route, None)

        def narrow(positions: Sequence[int]) -> Part:
            picked = json.dumps(pick(inner, found, positions))
            return Part(body=splice(text, {(span.start, span.end): picked}).encode())

        return Call(route, _identifiers(found), "body.ids", narrower=narrow)
    spans = elements(text, span.start)
    if spans is None:
        return Call(route, None)
    return Call(route, _identifiers(spans), "body.ids", narrower=_body_narrower(text, span, spans))


def _read_query_ids(route: Route, url: str) -> Call:
    found = _QUERY_IDS.findall(url)
    place = _QUERY_IDS.search(url)
    if len(found) != 1 or place is None or not found[0]:
        return Call(route, None)
    raw = _COMMA.split(found[0])
    comma = _COMMA.search(found[0])

    def narrow(positions: Sequence[int]) -> Part:
        picked = (comma[0] if comma else ",").join(raw[position] for position in positions)
        return Part(url=splice(url, {place.span(1): picked}))

    return Call(route, tuple(unquote_plus(value).strip() or None for value in raw), "query.ids", narrower=narrow)


def _read_composite(route: Route, url: str, body: _Body) -> Call:  # noqa: ARG001
    _, top = _object(body)
    subs = top["__composite_requests"].value if "__composite_requests" in top else None
    if not isinstance(subs, list):
        return Call(route, None)
    routes = [_sub_route(sub) for sub in subs]
    ids = tuple(sub.record_id if sub else None for sub in routes)
    reads = frozenset(index for index, sub in enumerate(routes) if sub and sub.endpoint.reads)
    return Call(route, ids, reads=reads)


def _sub_route(sub: object) -> Route | None:
    if not isinstance(sub, Mapping):
        return None
    method, uri = sub.get("method"), sub.get("uri")
    if not isinstance(method, str) or not isinstance(uri, str):
        return None
    path = re.split(r"[?#]", uri[max(tail_of(uri), 0) :], maxsplit=1)[0]
    return locate(method.upper(), path)


def _object(body: _Body) -> tuple[str, dict[str, Span]]:
    """Return a request body as text, and its top level. The content type is not asked: many clients send none."""
    text = (body() or b"").decode()
    return text, (members(text) or {}) if text else {}


def _body_narrower(text: str, span: Span, found: Sequence[Span]) -> Callable[[Sequence[int]], Part]:
    def narrow(positions: Sequence[int]) -> Part:
        return Part(body=splice(text, {(span.start, span.end): pick(text, found, positions)}).encode())

    return narrow


def _identifiers(spans: Sequence[Span]) -> tuple[str | None, ...]:
    return tuple(identifier(span.value) for span in spans)


_READERS: Final[dict[IdsIn, Callable[[Route, str, _Body], Call]]] = {
    IdsIn.PATH: _read_path,
    IdsIn.BODY_DATA: _read_data,
    IdsIn.IDS: _read_ids,
    IdsIn.COMPOSITE: _read_composite,
}
