"""What a conversation asks of its driver, and how it ends: plain values. Pure."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.merge import Merged
    from crm_guard._protocol.request_records import Part
    from crm_guard.events import GuardEvent
    from crm_guard.outcomes import CallError, RecordOutcome

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request, changed as `part` says; reply with the :class:`Answer`.

    Attributes:
        part: What to change.
        again: Whether it was sent before: then a copy is sent, with renewed credentials.
    """

    part: Part
    again: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until some records should be sent (again); reply with :class:`Waited`.

    Attributes:
        keys: The records, each `"origin|record id"`; empty where they have no ids.
        delay: Seconds to wait unless another call's schedule applies.
        deadline: Instant at which the wait ends in any case.
        event: What to tell the hooks, with the seconds that the wait will take.
    """

    keys: frozenset[str]
    delay: float
    deadline: float
    event: GuardEvent


@dataclass(frozen=True, slots=True)
class Waited:
    """How a wait ended.

    Attributes:
        go: The keys to send now; none where the deadline or `stop_waiting()` ended the wait.
        stopped: Whether `stop_waiting()` ended it.
    """

    go: frozenset[str] = frozenset()
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """Tell other calls what CRM just said of some records; reply with the instant.

    Attributes:
        locked: Keys that are still locked.
        free: Keys that are not.
        retry_after: Seconds for which CRM asked not to send the locked ones again.
    """

    locked: frozenset[str]
    free: frozenset[str]
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask CRM for approval states; reply with `$approval_state` by record id, as far as it could be read.

    Attributes:
        module: The records' module.
        ids: The records.
    """

    module: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the hooks of an event; reply with the instant. The driver adds the seconds waited."""

    event: GuardEvent


Step: TypeAlias = Send | Wait | Share | Ask | Tell
Steps: TypeAlias = Generator[Step, Any, T]
"""Yields steps, is sent the replies, and returns a `T`."""


class Broken(BaseException, Generic[R]):
    """Thrown into the conversation when the call is aborted: it ends, and asks for nothing more.

    Attributes:
        error: The error that aborted it; None for a Ctrl-C or the like.
        sends: How many sends had begun.
        arrived: Whether the most recent of these may have reached CRM.
        answer: The answer to it, where all of it had come.
    """

    def __init__(
        self,
        error: CallError | None = None,
        *,
        sends: int = 1,
        arrived: bool = True,
        answer: Answer[R] | None = None,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.sends, self.arrived, self.answer = sends, arrived, answer

    @property
    def reason(self) -> GiveUpReason:
        """Why the call gives up."""
        return GiveUpReason.FOLLOW_UP if self.error else GiveUpReason.INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending(Generic[R]):
    """How a conversation ended.

    Attributes:
        answer: The most recent answer; None where none came.
        merged: Status and body of the result if it is made of several answers; None if `answer` is the result.
        outcomes: What became of each record.
        attempts: Sends.
        reason: Why waiting stopped.
        retry_after: Seconds after which a later try makes sense.
        error: What failed the call, or its most recent send, as a whole.
        remaining: What to change in the request to send the records that are still locked later, if any.
        events: What is left to tell the hooks.
        raises: Whether `raise_on` asks to raise for blocked records.
        keeps_results: Whether some record has a final result, which an exception must carry.
        certain: The positions of those outcomes that are without doubt about the record at this request index; None
            where `answer` alone tells that.
    """

    answer: Answer[R] | None
    merged: Merged | None = None
    outcomes: tuple[RecordOutcome, ...] = ()
    attempts: int = 1
    reason: GiveUpReason | None = None
    retry_after: float | None = None
    error: CallError | None = None
    remaining: Part | None = None
    events: tuple[GuardEvent, ...] = ()
    raises: bool = False
    keeps_results: bool = False
    certain: frozenset[int] | None = field(default=None, compare=False)
