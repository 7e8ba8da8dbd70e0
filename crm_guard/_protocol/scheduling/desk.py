"""Where the rows of a writer are, and what ends it: the state that scheduling and answers share. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crm_guard._protocol.call_events import known_action
from crm_guard._protocol.scheduling.diagnoses import Diagnoses
from crm_guard._protocol.scheduling.endings import Endings
from crm_guard._protocol.scheduling.news import Newsroom
from crm_guard._protocol.scheduling.parking import OpenGate, Parking
from crm_guard._protocol.scheduling.queues import Queues
from crm_guard._protocol.scheduling.reading import with_states
from crm_guard._protocol.scheduling.throttle import Throttle
from crm_guard.row_results import Written

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard._protocol.call_events import Teller
    from crm_guard._protocol.record_outcomes import Judge
    from crm_guard._protocol.scheduling.end import End
    from crm_guard._protocol.scheduling.parking import Gate
    from crm_guard._protocol.scheduling.row import Question, Row
    from crm_guard.outcomes import CallError, GiveUpReason, RecordOutcome
    from crm_guard.settings import GuardSettings


class Desk:
    """Where the rows of a writer are. Used by one thread at a time.

    Args:
        judge: Judges items; knows no approval states.
        settings: The policy.
        random: Returns a number from 0 (included) to 1.
        size: How many rows a batch may hold.
        workers: How many calls may be under way.
        gate: What others know of locks; None: nothing is shared.
        teller: Makes events.

    Attributes:
        queues: Rows that could be sent at once.
        parking: Those that wait for a lock.
        diagnoses: Those whose approval state is yet to be asked for.
        endings: What became of the others.
        throttle: The pace of all calls.
        news: What is told of the rows.
        under_way: How many calls are.
        renewing: Whether credentials are renewed before every batch.
        end: Why nothing is sent any more; None while it is.
    """

    def __init__(
        self,
        judge: Judge,
        settings: GuardSettings,
        random: Callable[[], float],
        *,
        size: int,
        workers: int,
        gate: Gate | None,
        teller: Teller,
    ) -> None:
        self.judge, self.settings = judge, settings
        self.gate: Gate = gate if gate is not None else OpenGate()
        self.queues = Queues(settings, size)
        self.parking = Parking(settings, random, self.gate)
        self.diagnoses = Diagnoses(settings.wait_initial)
        self.endings = Endings(self.gate)
        self.throttle = Throttle(settings, workers, random)
        self.news = Newsroom(teller, known_action(settings.retry_actions))
        self.under_way = 0
        self.renewing = False
        self.end: End | None = None

    def stop(self, end: End, now: float) -> None:
        """Send nothing any more; the first cause counts."""
        if self.end is None:
            self.end = end
            self.gate.close()
            self.conclude(self.diagnoses.drain(), self.judge, now)

    def conclude(self, question: Question, judge: Judge, now: float) -> None:
        """Give rows that a person must approve their results, by a judge that may know their states."""
        for row, item in question.rows:
            self.finish(row, with_states(judge, item, row.record_id, row.index), now)

    def finish(
        self, row: Row, told: Written | RecordOutcome, now: float, reason: GiveUpReason | None = None
    ) -> None:
        """Give a row its result; rows that waited for it may be sent."""
        self.news.finished(row, None if isinstance(told, Written) else told, reason)
        for heir in self.endings.finish(row, told, now, reason):
            self.queues.inherit(heir)

    def publish(self, now: float, error: CallError | None = None) -> None:
        """Make events of what happened since; `error` is what the most recent send met as a whole."""
        self.news.publish(now, self.end, error)
