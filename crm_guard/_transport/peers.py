"""Which calls of the process wait for the same records, so that the log says once what is true of all of them."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from crm_guard.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crm_guard.events import GuardEvent


class Member(Protocol):
    """A call, as far as its peers are concerned.

    Attributes:
        group: Its peers and itself, once it waits.
        name: Tells it from others, also once it is gone.
    """

    group: PeerGroup | None
    name: object


class LeftOut(NamedTuple):
    """What became of the calls whose lines were left out.

    Attributes:
        calls: How many calls they are.
        endings: How often each ending was left out.
        event: The most recent event of them, with the records of all and the longest wait.
    """

    calls: int
    endings: Counter[str]
    event: GuardEvent


class PeerGroup:
    """The calls that wait for some records while the first of them does: that one speaks for all. Thread-safe.

    Members are kept by weak reference: one whose end was cut short by an interrupt silences nobody.

    Args:
        mutex: Guards all groups.
        first: The call that speaks.
        keys: Its records, as far as no other group has them.
    """

    def __init__(self, mutex: threading.Lock, first: Member, keys: Sequence[str]) -> None:
        self.keys = keys
        self._mutex = mutex
        self._first = weakref.ref(first)
        self._members: weakref.WeakSet[Member] = weakref.WeakSet()
        self._told: dict[tuple[str, str], object] = {}  # ending and record, and who told it
        self._quiet: weakref.WeakSet[Member] = weakref.WeakSet()
        self._calls = 0
        self._endings: Counter[str] = Counter()
        self._ids: dict[str, None] = {}
        self._last: GuardEvent | None = None

    @property
    def is_spoken_for(self) -> bool:
        """Whether the first member is still there."""
        return self._first() in self._members

    def add(self, member: Member) -> None:
        """Take a member in. The caller holds the mutex."""
        member.group = self  # first: whatever interrupts this, it knows what to leave
        self._members.add(member)

    def leave(self, member: Member) -> LeftOut | None:
        """Take a member out; return what was left out if it was the last one, and anything was. Idempotent."""
        with self._mutex:
            self._members.discard(member)
            if self._members:
                return None
            peer_groups.drop(self)
            last, self._last = self._last, None
            if last is None:
                return None
            about = replace(last, record_ids=tuple(self._ids), records=len(self._ids))
            return LeftOut(self._calls, self._endings, about)

    def leaves_out(self, member: Member, event: GuardEvent, ending: str) -> bool:
        """Return whether the line of an event is left out, as it repeats what another member said, or will say.

        Args:
            member: Whose event it is.
            event: The event.
            ending: How the member ended, in a few words; empty where it begins to wait.
        """
        with self._mutex:
            follows = self._first() is not member
            if not ending:
                return follows
            news = [(ending, record_id) for record_id in event.record_ids]
            me = member.name
            is_told = len(news) == event.records and all(self._told.get(one, me) is not me for one in news)
            for one in news:
                self._told.setdefault(one, me)
            is_left_out = follows if event.kind is EventKind.UNLOCKED else is_told
            if is_left_out:
                self._note(member, event, ending)
            return is_left_out

    def _note(self, member: Member, event: GuardEvent, ending: str) -> None:
        self._calls += member not in self._quiet
        self._quiet.add(member)
        self._endings[ending] += 1
        self._ids.update(dict.fromkeys(event.record_ids))
        longest = max(event.waited, self._last.waited if self._last is not None else 0.0)
        self._last = replace(event, waited=longest)


class PeerGroups:
    """All of the process, by the keys of their records. Thread-safe."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start empty, with a new mutex: the calls of a forked process's parent do not exist in it."""
        self._mutex = threading.Lock()
        self._of: dict[str, PeerGroup] = {}

    def join(self, member: Member, keys: Sequence[str]) -> None:
        """Put a call into the group of the calls that wait for its records, or into a new one where it is first."""
        with self._mutex:
            new = [key for key in keys if key not in self._of or not self._of[key].is_spoken_for]
            group = PeerGroup(self._mutex, member, new) if new else self._of[keys[0]]
            group.add(member)
            self._of.update(dict.fromkeys(new, group))

    def drop(self, group: PeerGroup) -> None:
        """Forget a group without members. The caller holds the mutex."""
        for key in group.keys:
            if self._of.get(key) is group:
                del self._of[key]


peer_groups: Final = PeerGroups()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=peer_groups.reset)
