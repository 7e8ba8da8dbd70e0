"""The CRM itself: records, locks, tokens, credits, faults and the call log. No sockets, no waiting."""

from __future__ import annotations

import copy
import random
import re
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from . import actions, composite, coql, locking, org, photos, reads, related, search, territories, writes
from .faults import Fault, PathText, applies, encode, kind_of
from .messages import (
    JSON_TYPE,
    Call,
    Json,
    Reply,
    Request,
    RequestError,
    invalid_token,
    scope_mismatch,
    too_many_requests,
)
from .new_rows import NewRefusal
from .records import Record, State, Store, snapshot
from .refusals import CAUSES
from .routes import TOKEN_PATH, Kind, resolve
from .visit import EngineOptions, Notes, Options, Visit

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping

_HANDLERS: Mapping[Kind, Callable[[Visit], Reply]] = {
    Kind.LIST: reads.list_records,
    Kind.READ: reads.read_record,
    Kind.CREATE: writes.create,
    Kind.UPDATE: writes.update,
    Kind.UPDATE_ONE: writes.update_one,
    Kind.UPSERT: writes.upsert,
    Kind.DELETE: writes.delete,
    Kind.DELETE_ONE: writes.delete_one,
    Kind.ADD_TAGS: actions.tag_many,
    Kind.REMOVE_TAGS: actions.tag_many,
    Kind.ADD_TAGS_ONE: actions.tag_one,
    Kind.REMOVE_TAGS_ONE: actions.tag_one,
    Kind.SHARE: actions.share,
    Kind.SHARE_CHANGE: actions.share,
    Kind.SHARE_LIST: actions.list_shares,
    Kind.SHARE_REVOKE: actions.revoke_shares,
    Kind.MASS_UPDATE: actions.mass_update,
    Kind.MASS_DELETE: actions.mass_delete,
    Kind.CHANGE_OWNER: actions.change_owner,
    Kind.CHANGE_OWNER_ONE: actions.change_owner_one,
    Kind.CONVERT: actions.convert,
    Kind.INVENTORY_CONVERT: actions.inventory_convert,
    Kind.MASS_CONVERT: actions.mass_convert,
    Kind.CONVERSION_OPTIONS: actions.conversion_options,
    Kind.PHOTO_GET: photos.download,
    Kind.PHOTO_POST: photos.upload,
    Kind.PHOTO_DELETE: photos.delete,
    Kind.PORTAL_INVITE: actions.portal_invite,
    Kind.ASSIGN_TERRITORIES: territories.move_many,
    Kind.REMOVE_TERRITORIES: territories.move_many,
    Kind.ASSIGN_TERRITORIES_ONE: territories.move_one,
    Kind.REMOVE_TERRITORIES_ONE: territories.move_one,
    Kind.BLUEPRINT: actions.update_blueprint,
    Kind.SEND_MAIL: actions.send_mail,
    Kind.CLONE: writes.clone,
    Kind.LOCKS: locking.list_locks,
    Kind.LOCK_READ: locking.read_lock,
    Kind.LOCK: locking.lock_record,
    Kind.LOCK_CHANGE: locking.change_reason,
    Kind.UNLOCK: locking.unlock_record,
    Kind.COMPOSITE: composite.composite,
    Kind.TOKEN: org.issue_token,
    Kind.MODULES: org.list_modules,
    Kind.FIELDS: org.list_fields,
    Kind.USERS: org.list_users,
    Kind.ORG: org.show_org,
    Kind.SEARCH: search.search_records,
    Kind.COUNT: search.count_records,
    Kind.COQL: coql.run_query,
    Kind.RELATED: related.list_related,
    Kind.RELATED_ONE: related.read_related,
    Kind.MODULE: org.show_module,
    Kind.FIELD: org.show_field,
    Kind.RELATED_LISTS: related.list_related_lists,
    Kind.USER: org.show_user,
}
_SETTINGS = (Kind.MODULES, Kind.MODULE, Kind.FIELDS, Kind.FIELD, Kind.RELATED_LISTS)
_META = frozenset({*_SETTINGS, Kind.USERS, Kind.USER, Kind.ORG})
_QUERIES = frozenset({Kind.SEARCH, Kind.COUNT, Kind.COQL, Kind.RELATED, Kind.RELATED_ONE})
_READS = frozenset({Kind.LIST, Kind.READ, Kind.PHOTO_GET, Kind.CONVERSION_OPTIONS, Kind.SHARE_LIST})
_LOCK_READS = (Kind.LOCKS, Kind.LOCK_READ)
_SCOPES: Mapping[Kind, str] = {
    **dict.fromkeys(_READS | _META | _QUERIES, "READ"),
    **dict.fromkeys(_LOCK_READS, "READ"),
    Kind.LOCK: "CREATE",
    Kind.UNLOCK: "DELETE",
    **dict.fromkeys((Kind.CREATE, Kind.UPSERT, Kind.CLONE, Kind.SHARE), "CREATE"),
    **dict.fromkeys((Kind.DELETE, Kind.DELETE_ONE, Kind.MASS_DELETE), "DELETE"),
}
_COMPOSITE_UNITS = 5
_TOKEN_PREFIX = "Zoho-oauthtoken "  # noqa: S105
_NEVER_RESET = frozenset({"_options", "_mutex", "_present", "_in_service"})


class Engine:
    """A Zoho CRM in memory, to be called in process with :meth:`handle`, or over HTTP as a `Simulator`.

    Thread-safe: every method may be called from any thread, also while calls are being answered. One mutex
    orders all calls, so each sees the records as the call before it left them.

    Args:
        **options: See :class:`crm_guard.simulator.Options`, which lists them with units and defaults.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(self, **options: Unpack[EngineOptions]) -> None:
        self._options = Options(**options)
        self._mutex = threading.Lock()
        self._store = Store(self._options.clock(), touch=self._options.validation_touches)
        self._rng = random.Random(self._options.seed)
        self._tokens = None if self._options.token is None else {self._options.token}
        self._denied: set[tuple[str | None, str | None, str]] = set()
        self._credits = self._options.credits
        self._credits_spent = 0
        self._faults: list[Fault] = []
        self._calls: deque[Call] = deque()
        self._log_bytes = 0
        self._answered = 0
        self._answers = 0
        self._present = 0
        self._in_service = 0
        self._max_concurrent = 0

    @property
    def clock(self) -> Callable[[], float]:
        """The time source that it was given."""
        return self._options.clock

    def now(self) -> float:
        """Return the current instant, in seconds on its clock."""
        return self._options.clock()

    # --- records -----------------------------------------------------------------------------------------------

    def add_record(
        self,
        module: str,
        id: str | int | None = None,  # noqa: A002
        *,
        state: State | str = State.APPROVED,
        locked_for: float | None = None,
        refusals: int | None = None,
        then: State | str = State.APPROVED,
        fields: Mapping[str, object] | None = None,
        image: bytes | None = None,
        image_state: State | str | None = None,
        lock_source: str = "Manual",
    ) -> str:
        """Put a record into CRM.

        Args:
            module: API name of its module; any name will do, a capital first lets calls reach it.
            id: Its id; `None` makes one up.
            state: Where it stands. With `locked_for` or `refusals`, `approved` means `zia_vision_validation`.
            locked_for: Seconds from now, on the clock, after which the state ends; `None` for no such end.
            refusals: Refused calls after which the state ends; `None` for no such end. Given both, the
                earlier counts. Given neither, the state stays until :meth:`unlock` or :meth:`set_state`.
            then: State that follows.
            fields: Field API names to values.
            image: Record image.
            image_state: `zia_image_pending` when only the image waits for a person, else `None`.
            lock_source: `"Manual"` or `"Automatic"`: who locked it, for `record_locking`.

        Returns:
            The record's id.

        Raises:
            ValueError: The id is taken, or a state is unknown.
        """
        with self._mutex:
            now = self._options.clock()
            record = Record(str(id or self._store.new_id()), module, created=now, modified=now)
            record.fields = copy.deepcopy(dict(fields or {}))
            record.image, record.lock_source = image, lock_source
            self._enter(record, state, locked_for, refusals, then)
            record.image_pending = _waits(image_state)
            return self._store.add(record).id

    def set_state(
        self,
        id: str | int,  # noqa: A002
        state: State | str,
        *,
        locked_for: float | None = None,
        refusals: int | None = None,
        then: State | str = State.APPROVED,
    ) -> None:
        """Move a record to another state; the arguments are those of :meth:`add_record`.

        Raises:
            KeyError: There is no such record.
            ValueError: A state is unknown.
        """
        with self._mutex:
            self._enter(self._store.records[str(id)], state, locked_for, refusals, then)

    def unlock(self, id: str | int, then: State | str = State.APPROVED) -> None:  # noqa: A002
        """End a record's lock now.

        Raises:
            KeyError: There is no such record.
        """
        self.set_state(id, then)

    def refuse_new(
        self,
        module: str,
        *,
        where: Callable[[Json], bool] | None = None,
        refusals: int | None = None,
        locked_for: float | None = None,
        state: State | str = State.ZIA_VISION_VALIDATION,
    ) -> NewRefusal:
        """Plan to refuse new rows for a while. Of several plans the first that is due takes a row.

        It concerns the rows of a create and the inserting rows of an upsert. A refused row creates nothing. Its
        item has the `json_path` `$.data[i].id`, where `i` is the index of the row in that request; the only row of
        a request that is not approved is refused with a bare item that has a `resource_path_index` (OAS).

        To refuse a whole create or upsert of several rows with that bare NOT_APPROVED, plan a fault:

            item = {"code": "NOT_APPROVED", "details": {"resource_path_index": 0},
                    "message": "record not approved", "status": "error"}
            crm.fault("answer", method="POST", path=r"/Leads(/upsert)?$", status=400, body=item)

        Args:
            module: API name of the module.
            where: Whether the plan concerns a row, given as the JSON object of the request; `None` for every row.
                Runs inside the engine, so it must not call the engine.
            refusals: Refusals of each row before that row is accepted; `None` for no such end. Equal rows share
                a count.
            locked_for: Seconds from now, on the clock, after which rows are accepted; `None` for no such end.
                Given both, the earlier counts. Given neither, rows are refused until :meth:`accept_new`.
            state: The refusal is that of a record in this state.

        Returns:
            The plan; its `refused` counts the refusals.

        Raises:
            ValueError: The state is unknown, or refuses nothing.
        """
        cause = CAUSES.get(State(state))
        if cause is None:
            msg = f"state={state!r} refuses no new rows"
            raise ValueError(msg)
        with self._mutex:
            until = None if locked_for is None else self._options.clock() + locked_for
            plan = NewRefusal(module=module, cause=cause, where=where, refusals=refusals, until=until)
            self._store.new_refusals.append(plan)
        return plan

    def accept_new(self) -> None:
        """Forget what :meth:`refuse_new` planned."""
        with self._mutex:
            self._store.new_refusals.clear()

    @property
    def new_refusals(self) -> tuple[NewRefusal, ...]:
        """Copies of what :meth:`refuse_new` planned, in that order."""
        with self._mutex:
            return tuple(copy.deepcopy(self._store.new_refusals))

    def remove_record(self, id: str | int) -> None:  # noqa: A002
        """Take a record away as if it had never been, with its counts. No call does that: a delete leaves a trace.

        Raises:
            KeyError: There is no such record.
        """
        with self._mutex:
            del self._store.records[str(id)]

    def get(self, id: str | int) -> Record:  # noqa: A002
        """Return a copy of a record as it stands now, also of a deleted one.

        Raises:
            KeyError: There never was such a record.
        """
        with self._mutex:
            return snapshot(self._store.get(str(id), self._options.clock()))

    @property
    def records(self) -> Mapping[str, Record]:
        """Copies of all records by id, without the deleted ones."""
        with self._mutex:
            now = self._options.clock()
            found = {key: self._store.get(key, now) for key in self._store.records}
            return {key: snapshot(record) for key, record in found.items() if not record.deleted}

    def _enter(
        self,
        record: Record,
        state: State | str,
        locked_for: float | None,
        refusals: int | None,
        then: State | str,
    ) -> None:
        wanted = State(state)
        ends = locked_for is not None or refusals is not None
        if ends and wanted is State.APPROVED:
            wanted = State.ZIA_VISION_VALIDATION
        until = None if locked_for is None else self._options.clock() + locked_for
        record.enter(wanted, until=until, refusals=refusals, then=State(then))

    # --- what happened -----------------------------------------------------------------------------------------

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls so far, in the order in which they were answered.

        So that a simulator may run for long, the log keeps the latest of them alone, as the options `log_calls` and
        `log_bytes` say. No count depends on it.
        """
        with self._mutex:
            return tuple(self._calls)

    def calls_after(self, number: int) -> tuple[tuple[int, Call], ...]:
        """Return the calls of the log behind the `number`-th, each with its own number; the first call has 1.

        Numbers begin anew after :meth:`reset_log`.
        """
        with self._mutex:
            first = self._answered - len(self._calls) + 1
            return tuple((count, call) for count, call in enumerate(self._calls, first) if count > number)

    @property
    def answered(self) -> int:
        """How many calls were answered, those included that the log does not hold any more."""
        with self._mutex:
            return self._answered

    def writes(self, id: str | int) -> int:  # noqa: A002
        """Return how many writes were applied to a record; 0 for an unknown one.

        Update, delete, tags, share, conversion, owner, territories, blueprint, mail, clone (of the original),
        portal invitation and photo upload or deletion count one each. Creating a record does not count.
        """
        return self.write_counts.get(str(id), 0)

    @property
    def write_counts(self) -> Mapping[str, int]:
        """Writes applied, by record id; records without any are left out."""
        return self._counts("writes")

    def refusals(self, id: str | int) -> int:  # noqa: A002
        """Return how many calls a record's state refused; 0 for an unknown one."""
        return self._counts("refusals").get(str(id), 0)

    def _counts(self, name: str) -> Counter[str]:
        with self._mutex:
            return self._store.counts(name)

    @property
    def credits_spent(self) -> int:
        """API credits that the calls cost. Refused calls cost as much as others; 401 and 429 cost nothing.

        ZOHO docs (api-limits): 1 by default, create, update and upsert 1 per 10 records, tags 1 per 50,
        conversion 5, composite 1, or 2 with a rollback that was not needed; COQL (COQL-Overview) 1, with a limit
        above 200 2, above 1000 3. OAS (`__apis`): mail 20.
        """
        with self._mutex:
            return self._credits_spent

    @property
    def credits_remaining(self) -> int | None:
        """Credits left, or `None` when there is no limit."""
        with self._mutex:
            return self._credits

    @property
    def max_concurrent(self) -> int:
        """The most calls seen at once, those refused with 429 for being too many included."""
        with self._mutex:
            return self._max_concurrent

    def tally(self) -> Json:
        """Return all counts as of one moment: `writes` and `refusals` by record id, and the numbers named here."""
        with self._mutex:
            return {
                "writes": dict(self._store.counts("writes")),
                "refusals": dict(self._store.counts("refusals")),
                "answered": self._answered,
                "credits_spent": self._credits_spent,
                "credits_remaining": self._credits,
                "max_concurrent": self._max_concurrent,
            }

    def reset_log(self) -> None:
        """Forget calls, all counts, spent credits and `max_concurrent`; states stay as they are."""
        with self._mutex:
            self._calls.clear()
            self._store.forget_counts()
            self._log_bytes = self._answered = self._credits_spent = self._max_concurrent = 0

    def reset(self, plant: Callable[[Engine], object] | None = None) -> None:
        """Return to the state of a new engine, in one step for all other threads. The clock goes on.

        Args:
            plant: Called with an engine of the same options, whose state then becomes that of this one: what it
                adds is there once the rest is gone.
        """
        names = [entry.name for entry in fields_of(self._options)]
        fresh = Engine(**{name: getattr(self._options, name) for name in names})
        if plant is not None:
            plant(fresh)
        with self._mutex:
            for name, value in vars(fresh).items():
                if name not in _NEVER_RESET:
                    setattr(self, name, value)

    # --- tokens, credits, faults -------------------------------------------------------------------------------

    @property
    def tokens(self) -> frozenset[str] | None:
        """Accepted access tokens; `None` when any will do."""
        with self._mutex:
            return None if self._tokens is None else frozenset(self._tokens)

    def expire_token(self, new: str | None = None) -> None:
        """Let every token so far expire, and accept `new` from now on; with `None`, no token at all."""
        with self._mutex:
            self._tokens = set() if new is None else {new}

    def deny_scope(self, token: str | None, module: str | None, operation: str) -> None:
        """Answer 401 OAUTH_SCOPE_MISMATCH to some calls from now on.

        Args:
            token: Access token that lacks the scope; `None` for every token.
            module: API name of the module; `None` for every module.
            operation: `READ`, `CREATE`, `UPDATE`, `DELETE`, or `ALL`; `WRITE` is all but `READ`.
        """
        with self._mutex:
            self._denied.add((token, module, operation.upper()))

    def set_credits(self, remaining: int | None) -> None:
        """Set the credits left for the day; `None` lifts the limit."""
        with self._mutex:
            self._credits = remaining

    def fault(
        self,
        kind: str | int,
        *,
        after: int = 0,
        times: int | None = 1,
        method: str | None = None,
        path: str | PathText | None = None,
        applied: bool | None = None,
        seconds: float = 0.0,
        retry_after: float | None = None,
        status: int = 200,
        body: bytes | str | Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Plan a fault. Of several plans the first that is due takes a call; the later ones do not see it.

        Args:
            kind: A :class:`FaultKind` value: `reset`, `drop` (or `close`), `truncated`, `401`, `429`, `500`,
                `502`, `empty`, `garbage`, `answer`, `slow`, `too_few_items`, `extra_item`, `foreign_id`,
                `reordered`.
            after: Matching calls that pass first.
            times: Matching calls that are hit then; `None` for every one.
            method: Only calls with this HTTP method.
            path: Only calls in whose path this regular expression, or this text, is found.
            applied: Whether CRM does what the call asks before the fault strikes. `None`: yes for `slow` and
                the four that change items, which are true answers spoiled on the way; no for all others.
            seconds: How late a `slow` answer is, in seconds.
            retry_after: Seconds that a `429` tells the client to wait, in a header and in `details`.
            status: HTTP status of `answer`.
            body: Body of `answer`; a dict is sent as JSON.
            headers: Headers of `answer`; `None` for a JSON content type.

        Returns:
            The plan; its `delivered` counts the calls it hit.

        Raises:
            ValueError: The kind is unknown.
        """
        known = kind_of(kind)
        planned = Fault(
            kind=known,
            after=after,
            times=times,
            method=None if method is None else method.upper(),
            path=re.compile(path) if isinstance(path, str) else path,
            applied=applies(known, applied),
            seconds=seconds,
            retry_after=retry_after,
            status=status,
            body=encode(body),
            headers={"Content-Type": JSON_TYPE} if headers is None else dict(headers),
        )
        with self._mutex:
            self._faults.append(planned)
        return planned

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Copies of the planned faults as they stand, in the order in which they were planned."""
        with self._mutex:
            return tuple(replace(plan) for plan in self._faults)

    def clear_faults(self) -> None:
        """Forget all planned faults."""
        with self._mutex:
            self._faults.clear()

    # --- calls -------------------------------------------------------------------------------------------------

    def handle(self, request: Request, *, hold: Callable[[float], object] | None = None) -> Reply:
        """Answer one request.

        Args:
            request: The request.
            hold: Called outside the mutex with the seconds that the call is to stay in service, after its work
                was done; `None` lets no time pass.

        Returns:
            The answer; `delivery` and `delay` tell what a fault or the latency does to it.
        """
        with self._service(_units(request)) as crowded:
            with self._mutex:
                reply = self._answer(request, crowded=crowded)
            if hold is not None and reply.delay > 0:
                hold(reply.delay)
        return reply

    @contextmanager
    def _service(self, units: int) -> Iterator[bool]:
        """Count a call as `units` in service; yields whether that is too many.

        A call that takes more units than there are passes where it is alone.
        """
        limit = self._options.concurrency
        with self._mutex:
            units = units if limit is None else min(units, limit)
            crowded = limit is not None and self._in_service + units > limit
            self._present += 1
            self._in_service += 0 if crowded else units
            self._max_concurrent = max(self._max_concurrent, self._present)
        try:
            yield crowded
        finally:
            with self._mutex:
                self._present -= 1
                self._in_service -= 0 if crowded else units

    def _answer(self, request: Request, *, crowded: bool) -> Reply:
        """Answer and log, under the mutex."""
        now, notes = self._options.clock(), Notes(credits=0)
        gate = self._gate(request, crowded=crowded)
        fault = None if gate else next((plan for plan in self._faults if plan.strikes(request)), None)
        reply = gate or self._work(request, now, notes, fault)
        if not crowded:
            reply = replace(reply, delay=reply.delay + self._options.latency)
        reply = self._dress(reply)
        self._log(request, now, notes, reply, fault)
        return reply

    def _gate(self, request: Request, *, crowded: bool) -> Reply | None:
        """Return the answer to a call that CRM does not even look at."""
        token = (request.header("Authorization") or "").removeprefix(_TOKEN_PREFIX)
        if request.path == TOKEN_PATH:
            return None
        if crowded or self._credits == 0:
            return too_many_requests()
        if self._tokens is not None and token not in self._tokens:
            return invalid_token()
        return self._scope_gate(request, token) if self._denied else None

    def _scope_gate(self, request: Request, token: str) -> Reply | None:
        try:
            route = resolve(request.method, request.path)
        except RequestError:
            return None
        scope = _SCOPES.get(route.kind, "UPDATE")
        operations = {scope, "ALL", "READ" if scope == "READ" else "WRITE"}
        queried = coql.queried_module(request) if route.kind is Kind.COQL else ""
        modules = {None, route.module, route.related, queried}
        for denied_token, module, operation in self._denied:
            matches = denied_token in (None, token) and module in modules
            if matches and operation in operations:
                return scope_mismatch()
        return None

    def _work(self, request: Request, now: float, notes: Notes, fault: Fault | None) -> Reply:
        """Do what the call asks, unless a fault strikes before, and let the fault have its answer."""
        if fault is None:
            reply = self._route(request, self._store, now, notes)
        elif fault.applied:
            reply = fault.spoil(self._route(request, self._store, now, notes))
        elif fault.needs_answer:
            reply = fault.spoil(self._rehearse(request, now))
        else:
            return fault.spoil(Reply(status=0))
        self._charge(notes.credits)
        return reply

    def _rehearse(self, request: Request, now: float) -> Reply:
        """Return the answer that a call would get, without doing anything."""
        scratch, state = copy.deepcopy(self._store), self._rng.getstate()
        reply = self._route(request, scratch, now, Notes())
        self._rng.setstate(state)
        return reply

    def _route(self, request: Request, store: Store, now: float, notes: Notes) -> Reply:
        notes.credits = 1
        try:
            route = resolve(request.method, request.path)
            visit = Visit(
                request=request,
                route=route,
                store=store,
                options=self._options,
                now=now,
                rng=self._rng,
                notes=notes,
                dispatch=lambda sub: self._route(sub, store, now, notes),
                new_token=self._new_token,
            )
            org.require_module(visit)
            return _HANDLERS[route.kind](visit)
        except RequestError as error:
            return error.reply

    def _new_token(self) -> str:
        token = f"1000.{self._rng.getrandbits(128):032x}"
        if self._tokens is not None:
            self._tokens.add(token)
        return token

    def _charge(self, cost: int) -> None:
        self._credits_spent += cost
        if self._credits is not None:
            self._credits = max(0, self._credits - cost)

    def _dress(self, reply: Reply) -> Reply:
        """Add the headers that every answer may carry."""
        headers = dict(reply.headers)
        self._answers += 1
        if self._options.cookies:
            headers["Set-Cookie"] = f"zalb_sim={self._answers}; Path=/; HttpOnly"
        if self._credits is not None and self._shows_credits():
            headers["X-API-CREDITS-REMAINING"] = str(self._credits)
        return replace(reply, headers=headers)

    def _shows_credits(self) -> bool:
        whole, left = self._options.credits or 0, self._credits or 0
        return self._options.credits_header == "always" or left * 2 <= whole

    def _log(self, request: Request, now: float, notes: Notes, reply: Reply, fault: Fault | None) -> None:
        answered = reply.delivery in ("whole", "truncated")
        call = Call(
            at=now,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.body,
            status=reply.status if answered else 0,
            record_ids=tuple(notes.named),
            applied_ids=tuple(notes.applied),
            refused_ids=tuple(notes.refused),
            connection=request.connection,
            response_body=reply.body if answered else b"",
            fault=None if fault is None else fault.kind.value,
            credits=notes.credits,
        )
        self._calls.append(call)
        self._answered += 1
        self._log_bytes += call.size
        most, most_bytes = self._options.log_calls, self._options.log_bytes
        while len(self._calls) > most or (self._log_bytes > most_bytes and len(self._calls) > 1):
            self._log_bytes -= self._calls.popleft().size


def _units(request: Request) -> int:
    """Return how much of the concurrency a call takes: a composite five, whatever is in it (OAS)."""
    return _COMPOSITE_UNITS if request.path.endswith("/__composite_requests") else 1


def _waits(image_state: State | str | None) -> bool:
    """Return whether an image state means that a person has yet to look.

    Raises:
        ValueError: An image cannot be in that state.
    """
    if image_state in (None, State.APPROVED):
        return False
    if image_state == State.ZIA_IMAGE_PENDING:
        return True
    msg = f"image_state={image_state!r}: only zia_image_pending, approved or None"
    raise ValueError(msg)
