"""Records, their approval states and their locks: what the org holds. Not thread-safe; the engine locks."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .messages import Json
    from .new_rows import NewRefusal

USER: Json = {"name": "Patricia Boyle", "id": "5725767000000411001"}
_FIRST_ID = 111112000000142000
_FIRST_MOMENT = datetime(2026, 5, 10, 1, 10, 47, tzinfo=timezone(timedelta(hours=-7)))


class State(StrEnum):
    """Where a record stands. The first block are values of `$approval_state` (OAS: module_search).

    The last two are the simulator's own: such records read as `approved`.
    """

    APPROVED = "approved"
    ZIA_VISION_VALIDATION = "zia_vision_validation"
    ZIA_VISION_REJECTED = "zia_vision_rejected"
    ZIA_VISION_PENDING = "zia_vision_pending"
    APPROVAL_PROCESS_PENDING = "approval_process_pending"
    APPROVAL_PROCESS_REJECTED = "approval_process_rejected"
    REVIEW_PROCESS_PENDING = "review_process_pending"
    REVIEW_PROCESS_REJECTED = "review_process_rejected"
    MERGE_PENDING = "merge_pending"
    WEBFORM_UNAPPROVED = "webform_unapproved"
    WEBFORM_INVALID = "webform_invalid"
    WEBFORM_INVALID_APPROVAL = "webform_invalid_approval"
    WEBFORM_DOUBLE_OPTIN = "webform_double_optin"
    EMAIL_PARSER_WAITING = "email_parser_waiting"
    EMAIL_PARSER_REJECTED = "email_parser_rejected"
    ZIA_IMAGE_PENDING = "zia_image_pending"
    """The record is fine, its image waits for a person: only the photo calls refuse."""
    RECORD_LOCKING = "record_locking"
    """Locked by the Record Locking feature, by hand or by a rule."""

    @property
    def approval_state(self) -> str:
        """The value that `$approval_state` shows."""
        hidden = (State.ZIA_IMAGE_PENDING, State.RECORD_LOCKING)
        return "approved" if self in hidden else self.value

    @property
    def is_approved(self) -> bool:
        """The value that `$approved` shows. For a record under merge it is undocumented: taken as true."""
        return self.approval_state in ("approved", "merge_pending")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a lock by hand covers, and gives back when it is lifted. The attributes are those of a record."""

    state: State = State.APPROVED
    locked_until: float | None = None
    refusals_left: int | None = None
    then: State = State.APPROVED
    image_pending: bool = False
    lock_source: str = "Manual"


@dataclass(slots=True)
class Record:
    """One record, and everything that the simulator knows of it. What :meth:`Engine.get` returns is a copy.

    Attributes:
        id: Record id, a decimal string.
        module: API name of its module.
        state: Where it stands.
        fields: Field API names to values.
        image: Record image as uploaded, or `None`.
        image_pending: The image waits for approval, whatever the state of the record.
        owner: `{"id": ...}` of the owner.
        tags: Tag names to `{"name", "id", "color_code"}`.
        shares: User, group or role ids to share entries.
        territories: Ids of the territories that it was assigned to.
        created: Creation, in seconds on the clock.
        modified: Last change, in seconds on the clock.
        locked_until: Instant at which the state ends, or `None`.
        refusals_left: Refusals after which the state ends, or `None`.
        then: State that follows.
        lock_id: Id under which Record Locking lists its lock.
        lock_source: `"Manual"` or `"Automatic"`.
        lock_reason: What the one who locked it by hand gave as reason, or `None`.
        covered: What a call that locked it by hand found, or `None`.
        deleted: A delete was applied.
        converted: A conversion was applied.
        writes: Writes applied so far.
        refusals: Refusals so far.
    """

    id: str
    module: str
    state: State = State.APPROVED
    fields: Json = field(default_factory=dict)
    image: bytes | None = None
    image_pending: bool = False
    owner: Json = field(default_factory=lambda: dict(USER))
    tags: dict[str, Json] = field(default_factory=dict)
    shares: dict[str, Json] = field(default_factory=dict)
    territories: list[str] = field(default_factory=list)
    created: float = 0.0
    modified: float = 0.0
    locked_until: float | None = None
    refusals_left: int | None = None
    then: State = State.APPROVED
    lock_id: str = ""
    lock_source: str = "Manual"
    lock_reason: str | None = None
    covered: Standing | None = None
    deleted: bool = False
    converted: bool = False
    writes: int = 0
    refusals: int = 0

    def enter(self, state: State, *, until: float | None = None, refusals: int | None = None, then: State) -> None:
        """Move to `state`, until an instant, a number of refusals, or for good."""
        self.state, self.locked_until, self.refusals_left, self.then = state, until, refusals, then
        self.image_pending = False
        self.lock_id, self.lock_reason, self.covered = "", None, None

    def lock_by_hand(self, lock_id: str, reason: str) -> None:
        """Lock it until :meth:`unlock_by_hand`. What it was before goes on beneath: its time runs."""
        covered = Standing(
            self.state, self.locked_until, self.refusals_left, self.then, self.image_pending, self.lock_source
        )
        self.enter(State.RECORD_LOCKING, then=State.APPROVED)
        self.lock_id, self.lock_source, self.lock_reason, self.covered = lock_id, "Manual", reason, covered

    def unlock_by_hand(self) -> None:
        """Return to what it was before, or what has become of that."""
        found = self.covered or Standing(self.then, lock_source=self.lock_source)
        self.enter(found.state, until=found.locked_until, refusals=found.refusals_left, then=found.then)
        self.image_pending, self.lock_source = found.image_pending, found.lock_source

    def settle(self, now: float, *, touch: bool = False) -> None:
        """Leave the state if its time is over, also beneath a lock; `touch` moves `modified` to that instant."""
        ends = self.covered or self
        over = ends.locked_until is not None and now >= ends.locked_until
        if not (over or (ends.refusals_left is not None and ends.refusals_left <= 0)):
            return
        if touch:
            self.modified = max(self.modified, ends.locked_until if over and ends.locked_until else now)
        if self.covered is None:
            self.enter(self.then, then=State.APPROVED)
        else:
            self.covered = Standing(self.covered.then, lock_source=self.covered.lock_source)

    @property
    def approval_state(self) -> str:
        """The value that `$approval_state` shows: a lock by hand does not approve what it covers (a guess)."""
        return (self.covered or self).state.approval_state

    @property
    def is_approved(self) -> bool:
        """The value that `$approved` shows."""
        return (self.covered or self).state.is_approved

    def refuse(self) -> None:
        """Count one refusal."""
        self.refusals += 1
        if self.refusals_left is not None:
            self.refusals_left -= 1


class Store:
    """All records of the org, with the ids and the calendar that go with them."""

    def __init__(self, origin: float, *, touch: bool = False) -> None:
        self.records: dict[str, Record] = {}
        self.tag_ids: dict[str, str] = {}
        self.new_refusals: list[NewRefusal] = []
        self._origin = origin
        self._touch = touch
        self._ids = 0

    def new_id(self) -> str:
        """Return an id that no record has."""
        self._ids += 1
        candidate = str(_FIRST_ID + self._ids)
        return self.new_id() if candidate in self.records else candidate

    def add(self, record: Record) -> Record:
        """Keep `record`.

        Raises:
            ValueError: Its id is taken.
        """
        if record.id in self.records:
            msg = f"record {record.id} exists already"
            raise ValueError(msg)
        self.records[record.id] = record
        return record

    def get(self, record_id: str, now: float) -> Record:
        """Return a record, deleted or not, as it stands at `now`.

        Raises:
            KeyError: There never was such a record.
        """
        record = self.records[record_id]
        record.settle(now, touch=self._touch)
        return record

    def living(self, module: str, now: float) -> Iterator[Record]:
        """Yield the records of a module that were not deleted, oldest first."""
        for record in list(self.records.values()):
            if record.module == module and not record.deleted:
                yield self.get(record.id, now)

    def find(self, module: str, reference: str, now: float, external: str | None = None) -> Record | None:
        """Return the living record that `reference` names: an id, or the value of the field `external`."""
        if external is not None:
            matching = (r for r in self.living(module, now) if r.fields.get(external) == reference)
            return next(matching, None)
        record = self.records.get(reference)
        if record is None or record.deleted or record.module != module:
            return None
        return self.get(reference, now)

    def tag(self, name: str, color: Any = None) -> Json:
        """Return the tag `name`, the same id each time."""
        tag_id = self.tag_ids.setdefault(name, f"30603200000006{len(self.tag_ids):05d}")
        return {"name": name, "id": tag_id, "color_code": color}

    def moment(self, instant: float) -> datetime:
        """Return the org's wall clock at an instant of the simulator's clock, in whole seconds."""
        return _FIRST_MOMENT + timedelta(seconds=int(instant - self._origin))

    def iso(self, instant: float) -> str:
        """Return :meth:`moment` the way CRM prints times."""
        return self.moment(instant).isoformat()

    def counts(self, name: str) -> Counter[str]:
        """Return `writes` or `refusals` of all records that have any."""
        found = {key: getattr(record, name) for key, record in self.records.items()}
        return Counter({key: count for key, count in found.items() if count})

    def forget_counts(self) -> None:
        """Set the writes and refusals of all records to zero."""
        for record in self.records.values():
            record.writes = record.refusals = 0

    def checkpoint(self) -> Mapping[str, Record]:
        """Return a copy of the records that :meth:`rollback` takes back."""
        return deepcopy(self.records)

    def rollback(self, checkpoint: Mapping[str, Record]) -> None:
        """Return to `checkpoint`."""
        self.records = dict(checkpoint)


def snapshot(record: Record) -> Record:
    """Return a copy that later calls do not change."""
    return replace(
        record,
        fields=deepcopy(record.fields),
        owner=dict(record.owner),
        tags=deepcopy(record.tags),
        shares=deepcopy(record.shares),
        territories=list(record.territories),
    )
