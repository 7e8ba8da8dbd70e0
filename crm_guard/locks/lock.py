"""What is known about locked records, and who needs them. Pure: no threads, no clock."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from crm_guard.clock import Wake


LONGEST: Final = 3
"""Own delays after which a caller sends what is free, and asks about what nobody asks about, in any case."""
_LONGEST_ASKED: Final = 60.0
"""Seconds: what CRM asked one call to wait (`Retry-After`) holds for others no longer than that."""


class Asker:
    """Whoever may ask CRM about a record: a caller of this process, or another process.

    Attributes:
        verdict_timeout: Seconds without a verdict after which nobody waits for it any more.
    """

    __slots__ = ("verdict_timeout",)

    def __init__(self, verdict_timeout: float) -> None:
        self.verdict_timeout = verdict_timeout


class Caller(Asker):
    """One call of this process."""

    __slots__ = (
        "delay",
        "due",
        "has_slot",
        "keys",
        "looks_at",
        "needs",
        "needs_slot",
        "origin",
        "seq",
        "start",
        "unshared",
        "waiting",
        "wake",
    )

    def __init__(self, wake: Wake, seq: int, verdict_timeout: float) -> None:
        super().__init__(verdict_timeout)
        self.wake = wake
        self.seq = seq  # the lower, the longer it has been here
        self.origin = ""
        self.keys: tuple[str, ...] = ()  # what it waits for
        self.needs: set[str] = set()  # the locks in whose queue it is
        self.unshared: set[str] = set()  # refused, but there was no room for the lock
        self.start = self.delay = 0.0  # of the current wait
        self.due = 0.0  # the instant at which it may go, as far as is known
        self.looks_at = float("inf")  # the instant at which it looks again, unless it is in line for a slot
        self.waiting = False
        self.needs_slot = self.has_slot = False  # whether it may go only with a slot, and whether it has one

    @property
    def share(self) -> float:
        """What it counts as for each record that it needs."""
        return 1.0 / max(len(self.keys), 1)


class Lock:
    """What is known about one record.

    Attributes:
        asked_at: Instant of the most recent refusal, or at which somebody asked since.
        asker: Who asks now.
        calls: How many callers of this process need the record, each counted by its share.
        elsewhere: How many those of other processes are, as far as they said so lately.
        free: CRM accepts it; the callers in `queue` are being woken.
        leader: The caller that asks next.
        not_before: Instant before which CRM asked not to ask.
        queue: The callers that need the record, with what each counts as; the next to ask comes first.
        told: The `calls` that other processes know of.
    """

    __slots__ = (
        "_heard",
        "asked_at",
        "asker",
        "calls",
        "elsewhere",
        "free",
        "leader",
        "not_before",
        "queue",
        "told",
    )

    def __init__(self, now: float) -> None:
        self.asked_at = now
        self.not_before = 0.0
        self.asker: Asker | None = None
        self.leader: Caller | None = None
        self.queue: OrderedDict[Caller, float] = OrderedDict()
        self.calls = self.elsewhere = self.told = 0.0
        self._heard: dict[str, tuple[float, float]] = {}  # by process: its calls, and when it said so
        self.free = False

    def enqueue(self, caller: Caller) -> None:
        """Count `caller` among those that need the record, by its share."""
        self.calls += caller.share - self.queue.get(caller, 0.0)
        self.queue[caller] = caller.share

    def dequeue(self, caller: Caller) -> None:
        """Count `caller` no more."""
        self.calls -= self.queue.pop(caller, 0.0)

    @property
    def needed_elsewhere(self) -> bool:
        """Whether another process needs the record."""
        return self.elsewhere > 0 or not (self.asker is None or isinstance(self.asker, Caller))

    def hear(self, process: str, calls: float, now: float) -> None:
        """Record how many calls of another process need the record."""
        self._heard[process] = calls, now
        self.forget(float("-inf"))

    def forget(self, before: float) -> None:
        """Forget the processes that need the record no more, or have not said so since the instant `before`."""
        self._heard = {by: (calls, at) for by, (calls, at) in self._heard.items() if calls > 0 and at >= before}
        self.elsewhere = sum(calls for calls, _ in self._heard.values())

    def needed_by(self, caller: Caller) -> float:
        """Return how many calls need the record, if `caller` does."""
        return max(self.calls + self.elsewhere, caller.share)

    def leaderless_at(self, caller: Caller) -> float:
        """Return the instant from which on `caller` may take the lead from whoever has it.

        The leader may have been lost, or be busy with another record: after three of its own delays without a
        question `caller` need not know which. A question under way is awaited.
        """
        if self.leader is None or self.leader is caller:
            return float("-inf")
        if self.asker is not None and self.asker is not caller:
            return self.asked_at + self.asker.verdict_timeout
        quiet_since = max(self.asked_at, self.not_before, caller.start)
        lost_at = max(self.asked_at, self.leader.due) + self.leader.verdict_timeout
        return min(lost_at, quiet_since + LONGEST * caller.delay)

    def is_asked(self, now: float, but: Asker) -> bool:
        """Return whether anybody but `but` asks, and was not lost."""
        asker = self.asker
        return asker is not None and asker is not but and now < self.asked_at + asker.verdict_timeout

    def may_be_asked(self, caller: Caller, now: float) -> bool:
        """Return whether `caller` may ask before it is due: it leads, nobody asks, and CRM allows it."""
        if self.free:
            return True
        return self.leader in {None, caller} and now >= self.not_before and not self.is_asked(now, but=caller)

    def ask(self, asker: Asker, now: float) -> None:
        """Record that `asker` asks CRM about the record. A caller is the last to ask again."""
        self.asker, self.asked_at, self.free = asker, now, False
        if isinstance(asker, Caller) and asker in self.queue:
            self.queue.move_to_end(asker)

    def ask_elsewhere(self, asker: Asker, now: float) -> None:
        """Record that another process asks, unless a call of this one does: such news may be older than that."""
        if not self.is_asked(now, but=asker):
            self.ask(asker, now)

    def refuse(self, asker: Asker, now: float, retry_after: float) -> None:
        """Record that CRM refused the record to `asker`."""
        if self.asker is asker:
            self.asker = None
        self.asked_at, self.free = now, False
        if retry_after > 0:
            self.not_before = now + min(retry_after, _LONGEST_ASKED)

    def unlock(self) -> None:
        """Record that CRM accepts the record."""
        self.free, self.leader, self.asker = True, None, None
        self.not_before = self.elsewhere = self.told = 0.0
        self._heard = {}

    def successor(self) -> Caller | None:
        """Return the waiting caller that has led or asked least recently, and put it at the end of the queue."""
        caller = next((one for one in self.queue if one.waiting), None)
        if caller is not None:
            self.queue.move_to_end(caller)
        return caller


class Standing(NamedTuple):
    """The keys that a caller waits for, by what it may do with them."""

    free: list[str]
    open: list[str]  # locked, and it may ask
    closed: list[str]  # locked, and another asks, or CRM wants to be asked later
    leads: bool  # some of the locked ones, or may take the lead


class Locks(dict[str, Lock]):
    """The locks by key, and the queues in which callers wait for them. Holds at most `max_records`.

    An interrupt may come between any two lines. `Caller.needs` names all that must be undone: first in, last out.
    """

    __slots__ = ("_max_records",)

    def __init__(self, max_records: int) -> None:
        super().__init__()
        self._max_records = max_records

    def add(self, key: str, now: float) -> Lock | None:
        """Return the lock of a record, a new one if need be; None if there is no room."""
        lock = self.get(key)
        if lock is None and len(self) < self._max_records:
            lock = self.setdefault(key, Lock(now))
        return lock

    def enqueue(self, caller: Caller, key: str) -> None:
        """Put `caller` in the queue of a record if there is a lock."""
        if key in self:
            caller.needs.add(key)
            self[key].enqueue(caller)

    def dequeue(self, caller: Caller, key: str) -> None:
        """Take `caller` out of the queue of a record, and drop its lock if nobody else needs it."""
        if key in self:
            self[key].dequeue(caller)
            self.drop_unneeded(key)
        caller.unshared.discard(key)
        caller.needs.discard(key)

    def drop_unneeded(self, key: str) -> None:
        """Drop a lock that nobody needs, here or in another process."""
        lock = self.get(key)
        if lock is not None and not lock.queue and not lock.needed_elsewhere:
            del self[key]

    def standing(self, caller: Caller, now: float) -> Standing:
        """Sort the keys that `caller` waits for. One without a lock is free, unless there was no room for it."""
        free: list[str] = []
        open_: list[str] = []
        closed: list[str] = []
        leads = False
        for key in caller.keys:
            lock = self.get(key)
            if lock is None and key in caller.unshared:
                open_.append(key)
                leads = True
            elif lock is None or lock.free:
                free.append(key)
            else:
                is_closed = now < lock.not_before or lock.is_asked(now, but=caller)
                (closed if is_closed else open_).append(key)
                leads = leads or now >= lock.leaderless_at(caller)
        return Standing(free, open_, closed, leads)
