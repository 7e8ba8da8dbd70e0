"""What the tests of bulk calls share: a guarded engine without sockets, and how each endpoint is called."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass
from http.client import responses as PHRASES  # noqa: N812 (a table)
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.exceptions import ConnectionError as TransportError
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import ProtocolError

from crm_guard import GuardAdapter, GuardSettings
from crm_guard.simulator import Engine, Request
from crm_guard.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ORIGIN = "https://www.zohoapis.com"
START = 1000.0
FIRST_ID = 555000000000000001
PATIENT: dict[str, Any] = {"attempts": 1000, "timeout": 1e9, "diagnose": False, "share_locks": False}


def nothing(number: int) -> None:
    """Do nothing at this send."""


def quoted(record_id: str, salt: int) -> str:
    return f'"{record_id}"'


class EngineTransport(BaseAdapter):
    """Sends requests to an engine in process.

    Attributes:
        sent: Every request as it was sent: method, URL, headers, body.
        responses: What was answered, as far as anything was.
        before: Called with the number of the send, from 1, before the engine sees it.
        after: Called with it when the engine has done its work.
    """

    def __init__(self, engine: Engine, *, compresses: bool = False) -> None:
        super().__init__()
        self._engine = engine
        self._compresses = compresses
        self._builder = HTTPAdapter()
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []
        self.responses: list[Response] = []
        self.before: Callable[[int], object] = nothing
        self.after: Callable[[int], object] = nothing

    def send(self, request: PreparedRequest, **options: Any) -> Response:  # type: ignore[override]
        body = request.body
        sent = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else b""
        if hasattr(body, "read"):
            sent = body.read()
        elif body is not None and not isinstance(body, str | bytes):
            sent = b"".join(body)
        self.sent.append((str(request.method), str(request.url), dict(request.headers), sent))
        self.before(len(self.sent))
        parts = urlsplit(str(request.url))
        reply = self._engine.handle(
            Request(
                method=str(request.method),
                path=parts.path,
                query=parts.query,
                headers=dict(request.headers),
                body=sent,
            )
        )
        self.after(len(self.sent))
        if reply.delivery in {"reset", "drop"}:
            raise TransportError(ProtocolError("Connection aborted.", ConnectionResetError()), request=request)
        response = self._response(request, reply)
        if not options.get("stream"):
            response.content  # noqa: B018 (what a session would do)
        self.responses.append(response)
        return response

    def _response(self, request: PreparedRequest, reply: Any) -> Response:
        body, headers = reply.body, HTTPHeaderDict(reply.headers)
        if self._compresses and body:
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if reply.status != 204:
            headers["Content-Length"] = str(len(body))
        if reply.delivery == "truncated":
            body = body[: len(body) // 2]
        raw = HTTPResponse(
            io.BytesIO(body), headers, reply.status, reason=PHRASES[reply.status], preload_content=False
        )
        return self._builder.build_response(request, raw)

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Guarded:
    """A guard in front of an engine, both on one clock."""

    engine: Engine
    clock: ManualClock
    transport: EngineTransport
    adapter: GuardAdapter

    def send(self, request: PreparedRequest) -> Response:
        return self.adapter.send(request)

    @property
    def resends(self) -> list[tuple[str, str, dict[str, str], bytes]]:
        return self.transport.sent[1:]


def guarded(settings: dict[str, Any] | None = None, *, adapter: Any = None, **options: Any) -> Guarded:
    """Return a guard in front of a new engine; `options` are the engine's, `settings` override `PATIENT`."""
    clock = ManualClock(START)
    engine = Engine(clock=clock, **{key: value for key, value in options.items() if key != "gzip"})
    transport = EngineTransport(engine, compresses=options.get("gzip", False))
    guard = GuardAdapter(
        GuardSettings(**{**PATIENT, **(settings or {})}), inner=transport, clock=clock, **(adapter or {})
    )
    return Guarded(engine, clock, transport, guard)


def unguarded(**options: Any) -> tuple[Engine, EngineTransport]:
    """Return an engine, and a transport that nothing guards."""
    engine = Engine(clock=ManualClock(START), **{key: value for key, value in options.items() if key != "gzip"})
    return engine, EngineTransport(engine, compresses=options.get("gzip", False))


def prepared(method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> PreparedRequest:
    request = PreparedRequest()
    request.prepare(method=method, url=url, data=body, headers=headers or {})
    return request


@dataclass(frozen=True)
class BatchCall:
    """How one bulk endpoint is called.

    Attributes:
        name: For test ids.
        method: HTTP method.
        path: Path behind the version.
        before: Body in front of the records.
        after: Body behind the records.
        record: Writes one record for an id and a salt.
        home: `data`, `ids`, `string`, `query` or `encoded`: where the records stand.
        ordered: Whether the order of the answer is documented.
        since: First version that has it.
        most: How many records one call takes, as far as the tests go.
    """

    name: str
    method: str
    path: str
    before: str = ""
    after: str = ""
    record: Callable[[str, int], str] = quoted
    home: str = "ids"
    ordered: bool = False
    since: float = 2
    most: int = 100

    def url(self, records: Sequence[str], version: str = "8") -> str:
        url = f"{ORIGIN}/crm/v{version}/{self.path}"
        if self.home not in {"query", "encoded"}:
            return url
        comma = "," if self.home == "query" else "%2C"
        return f"{url}{'&' if '?' in url else '?'}ids={comma.join(records)}{self.after}"

    def body(self, records: Sequence[str]) -> bytes | None:
        if self.home in {"query", "encoded"}:
            return self.before.encode() or None
        listed = "[" + ",".join(records) + "]"
        if self.home == "string":
            listed = json.dumps(listed)
        return f"{self.before}{listed}{self.after}".encode()

    def request(
        self, records: Sequence[str], version: str = "8", headers: dict[str, str] | None = None
    ) -> PreparedRequest:
        return prepared(self.method, self.url(records, version), self.body(records), headers)

    def records(self, ids: Sequence[str]) -> list[str]:
        return [self.record(record_id, salt) for salt, record_id in enumerate(ids)]

    def of(self, ids: Sequence[str], version: str = "8") -> PreparedRequest:
        return self.request(self.records(ids), version)


def row(record_id: str, salt: int) -> str:
    return f'{{"id":"{record_id}","Company":"Zylker {salt}"}}'


def territories_of(record_id: str, salt: int) -> str:
    return f'{{"id":"{record_id}","Territories":[{{"id":"{salt}"}}]}}'


def bare_id(record_id: str, salt: int) -> str:
    return record_id


_TAGS = ',"tags":[{"name":"vip"}]}'
CALLS = {
    call.name: call
    for call in (
        BatchCall("update", "PUT", "Leads", '{"data":', ',"trigger":[]}', row, "data", ordered=True),
        BatchCall("upsert", "POST", "Leads/upsert", '{"data":', "}", row, "data", ordered=True),
        BatchCall("delete", "DELETE", "Leads", "", "&wf_trigger=false", bare_id, "query"),
        BatchCall("delete_encoded", "DELETE", "Leads?wf_trigger=true", record=bare_id, home="encoded"),
        BatchCall("add_tags", "POST", "Leads/actions/add_tags", '{"ids":', _TAGS),
        BatchCall("add_tags_string", "POST", "Leads/actions/add_tags", '{"ids":', _TAGS, home="string"),
        BatchCall("add_tags_query", "POST", "Leads/actions/add_tags?tag_names=vip", "", "", bare_id, "query"),
        BatchCall("remove_tags", "POST", "Leads/actions/remove_tags", '{"tags":[{"name":"vip"}],"ids":', "}"),
        BatchCall("mass_update", "POST", "Leads/actions/mass_update", '{"data":[{"Company":"Z"}],"ids":', "}"),
        BatchCall("mass_delete", "POST", "Leads/actions/mass_delete", '{"ids":', "}", bare_id),
        BatchCall(
            "change_owner", "POST", "Leads/actions/change_owner", '{"ids":', ',"owner":{"id":"42"}}', since=3
        ),
        *(
            BatchCall(name, "POST", f"Leads/actions/{name}", '{"data":', "}", territories_of, "data", most=10)
            for name in ("assign_territories", "remove_territories")
        ),
    )
}
ALL_CALLS = tuple(CALLS)


def ids_of(count: int) -> list[str]:
    return [str(FIRST_ID + index) for index in range(count)]


def add_leads(engine: Engine, refusals: Sequence[int], **then: Any) -> list[str]:
    """Add one lead per entry: locked for so many refusals, 0 for not at all."""
    ids = ids_of(len(refusals))
    for record_id, count in zip(ids, refusals, strict=True):
        engine.add_record("Leads", record_id, fields={"Last_Name": "L"}, refusals=count or None, **then)
    return ids


def items_of(response: Response) -> list[dict[str, Any]]:
    body = response.json()
    return body["data"] if isinstance(body.get("data"), list) else [body]
