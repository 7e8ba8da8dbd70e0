"""One call at work: its options, what it read, and the notes it leaves for the call log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypedDict

from .messages import Json, Reply, Request, RequestError, bare, invalid_field, missing_field, read_json
from .records import Record, State, Store
from .refusals import cause_of, new_row_refusal, refusal
from .routes import Kind, Route

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .causes import Cause


class EngineOptions(TypedDict, total=False):
    """Keyword arguments of :class:`Engine` and :class:`Simulator`; :class:`Options` tells what they mean."""

    clock: Callable[[], float]
    token: str | None
    concurrency: int | None
    credits: int | None
    seed: int
    sandbox: bool
    caller: Literal["direct", "sdk"]
    latency: float
    validation_seconds: float | None
    validation_result: State | str
    validation_touches: bool
    cure_by_upload: bool
    details_style: Literal["seed", "oas"]
    envelope: Literal["bare", "data"] | None
    shuffle: bool
    credits_header: Literal["half", "always"]
    gzip: bool
    cookies: bool
    scheduled_convert: bool
    mandatory: Mapping[str, Sequence[str]]
    log_calls: int
    log_bytes: int
    max_body: int


def _mandatory() -> Mapping[str, Sequence[str]]:
    return {"Leads": ("Last_Name",), "Contacts": ("Last_Name",), "Accounts": ("Account_Name",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the simulated CRM behaves.

    By default it takes any token, has no limits and no latency, checks no image, and answers as production does.
    Its log keeps the latest 10,000 calls, at most 64 MiB of them; it takes bodies of up to 32 MiB.

    Attributes:
        clock: Time source, in seconds on a monotonic scale.
        token: The only accepted access token; `None` accepts any, or none.
        concurrency: Calls in service at once above which CRM answers 429; `None` for no limit. ZOHO docs:
            api-limits, 5 to 25 per org and app. A composite counts as five (OAS).
        credits: API credits left for the day; `None` for no limit. At 0 every call answers 429.
        seed: Seed of the random order that `shuffle` gives.
        sandbox: A partly applied batch answers 200 instead of 207, as sandboxes do.
        caller: `"sdk"`: a partly applied owner change answers 207; `"direct"`: 202 (ZOHO docs: change-owner).
        latency: Seconds that every call stays in service.
        validation_seconds: Seconds that Zia checks a record after an image came in: by photo upload, or by a
            create or update that sets `Record_Image`. `None` or 0: no check.
        validation_result: State after such a check.
        validation_touches: The end of a check moves `Modified_Time` (undocumented, hence off).
        cure_by_upload: A record in `zia_vision_rejected` takes a new photo, which starts another check, and lets
            its photo be deleted, after which it stays rejected. Off: both are refused. SEED lists upload among
            the refused calls and also as the remedy, so both behaviours can be had.
        details_style: Form of `details` where updates are refused for Zia's lock or as not approved, and upserts
            as not approved: `"seed"` names the record by `id`, as the announcement does, `"oas"` by `json_path` or
            `resource_path_index`, never by `id`. Other locks of updates are named as `"oas"` has them.
        envelope: Overrides the documented envelope of refusals: `"bare"` takes one single item out of `data`,
            `"data"` puts a bare item in; `None` keeps what each endpoint documents.
        shuffle: Answers whose order is undocumented (delete, tags, mass actions, owner) come in random order.
            Off: in the order of the request, mass delete reversed (its printed example is out of order).
        credits_header: When `X-API-CREDITS-REMAINING` is sent: `"half"`, once half of the credits are used
            (ZOHO docs: api-limits), or `"always"`. Without `credits` it is never sent.
        gzip: Bodies are compressed for clients that accept it.
        cookies: Every answer sets a cookie with a running number, as load balancers do.
        scheduled_convert: Lead conversion answers 202 SCHEDULED; the job does its work at once.
        mandatory: Module to fields without which nothing is created.
        log_calls: Calls that the log keeps, 1 or more: the latest. All counts go on.
        log_bytes: Bytes that the log keeps, 0 or more: bodies, paths, queries and headers of its calls together.
            The oldest calls go first, the latest stays whatever its size.
        max_body: Largest request body that is taken over HTTP, in bytes, 0 or more. A larger one is answered with
            413, and not read.
    """

    clock: Callable[[], float] = time.monotonic
    token: str | None = None
    concurrency: int | None = None
    credits: int | None = None
    seed: int = 0
    sandbox: bool = False
    caller: Literal["direct", "sdk"] = "direct"
    latency: float = 0.0
    validation_seconds: float | None = None
    validation_result: State | str = State.APPROVED
    validation_touches: bool = False
    cure_by_upload: bool = False
    details_style: Literal["seed", "oas"] = "seed"
    envelope: Literal["bare", "data"] | None = None
    shuffle: bool = False
    credits_header: Literal["half", "always"] = "half"
    gzip: bool = False
    cookies: bool = False
    scheduled_convert: bool = False
    mandatory: Mapping[str, Sequence[str]] = field(default_factory=_mandatory)
    log_calls: int = 10_000
    log_bytes: int = 64 * 1024 * 1024
    max_body: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse what would otherwise fail in the middle of a test."""
        State(self.validation_result)
        checks = {
            "caller": self.caller in ("direct", "sdk"),
            "details_style": self.details_style in ("seed", "oas"),
            "envelope": self.envelope in (None, "bare", "data"),
            "credits_header": self.credits_header in ("half", "always"),
            "latency": self.latency >= 0,
            "concurrency": self.concurrency is None or self.concurrency >= 1,
            "credits": self.credits is None or self.credits >= 0,
            "validation_seconds": self.validation_seconds is None or self.validation_seconds >= 0,
            "log_calls": self.log_calls >= 1,
            "log_bytes": self.log_bytes >= 0,
            "max_body": self.max_body >= 0,
        }
        for name, fine in checks.items():
            if not fine:
                msg = f"{name}={getattr(self, name)!r} is out of range"
                raise ValueError(msg)


@dataclass(slots=True)
class Notes:
    """What one call did. Sub-requests of a composite write into the same notes."""

    named: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    credits: int = 1


@dataclass(kw_only=True)
class Visit:
    """One call being answered. Lives under the engine's mutex.

    Attributes:
        request: The request.
        route: What it addresses.
        store: The records; a scratch copy when the call is not to be applied.
        options: How CRM behaves.
        now: Instant of the call.
        rng: Source of random order.
        notes: For the log.
        dispatch: Answers a sub-request of a composite in this visit's store.
        new_token: Makes an access token that is accepted from now on.
    """

    request: Request
    route: Route
    store: Store
    options: Options
    now: float
    rng: random.Random
    notes: Notes
    dispatch: Callable[[Request], Reply]
    new_token: Callable[[], str]

    @cached_property
    def body(self) -> Json:
        """The JSON object of the request body, whatever its content type says.

        Raises:
            RequestError: It is no JSON object, or is nested too deeply.
        """
        try:
            parsed = read_json(self.request.body)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise RequestError(bare(400, "INVALID_DATA", "body", {"expected_data_type": "jsonobject"}))
        return parsed

    def rows(self, name: str = "data") -> list[Json]:
        """Return the array of objects under `name` in the body.

        Raises:
            RequestError: It is missing, empty, or no array of objects.
        """
        if name not in self.body:
            raise RequestError(missing_field(name))
        rows = self.body[name]
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise RequestError(invalid_field(name, "jsonarray"))
        return rows

    @cached_property
    def external(self) -> str | None:
        """Field API name of the header `X-EXTERNAL: Module.Field`, or `None`."""
        header = self.request.header("X-EXTERNAL")
        return None if header is None else header.rpartition(".")[2]

    def find(self, reference: str) -> Record | None:
        """Return the living record of this module behind an id or external value, and note it as named."""
        return self._named(reference, self.external)

    def find_row(self, row: Json) -> Record | None:
        """Return the living record that a row of the body means, by its id or external field; noted as named."""
        if row.get("id"):
            return self._named(str(row["id"]), None)
        return self._named(str(row.get(self.external or "id")), self.external)

    def _named(self, reference: str, external: str | None) -> Record | None:
        record = self.store.find(self.route.module, reference, self.now, external)
        self.notes.named.append(reference if record is None else record.id)
        return record

    def refusal(self, record: Record, position: int = 0) -> Json | None:
        """Return the item by which `record` refuses this call, counted; `None` when it does not refuse."""
        cause = self.cause(record)
        if cause is None:
            return None
        record.refuse()
        self.notes.refused.append(record.id)
        return refusal(record, self.route.kind, cause, position, style=self.options.details_style)

    def new_row_refusal(self, row: Json, position: int) -> Json | None:
        """Return the item by which a row that would become a record is refused, counted; `None` when it is not."""
        plans, module = self.store.new_refusals, self.route.module
        plan = next((plan for plan in plans if plan.strikes(module, row, self.now)), None)
        return None if plan is None else new_row_refusal(self.route.kind, plan.cause, position)

    def cause(self, record: Record) -> Cause | None:
        """Return why `record` refuses this call, or `None`."""
        cures = self.route.kind in (Kind.PHOTO_POST, Kind.PHOTO_DELETE)
        if cures and self.options.cure_by_upload and record.state is State.ZIA_VISION_REJECTED:
            return None
        return cause_of(record, self.route.kind)

    def applied(self, record: Record, *, modifies: bool = True) -> None:
        """Note that a write was applied to `record`; one that `modifies` it moves its `Modified_Time`."""
        record.writes += 1
        if modifies:
            record.modified = self.now
        self.notes.applied.append(record.id)

    def start_check(self, record: Record) -> None:
        """Have Zia look at the image that just came in."""
        seconds, result = self.options.validation_seconds, State(self.options.validation_result)
        if seconds:
            record.enter(State.ZIA_VISION_VALIDATION, until=self.now + seconds, then=result)
        elif record.state is not State.APPROVED:
            record.enter(result, then=State.APPROVED)

    def ordered(self, items: Iterable[Json], *, backwards: bool = False) -> list[Json]:
        """Return items of an endpoint whose order is undocumented, in the order that the options ask for."""
        found = list(items)
        if self.options.shuffle:
            self.rng.shuffle(found)
        elif backwards:
            found.reverse()
        return found
