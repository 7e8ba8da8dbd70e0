"""Ctrl-C at any line between the first send and the return: what is known comes along, and nothing stays behind."""

from __future__ import annotations

import dis
import linecache
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import crm_guard
from crm_guard import get_report
from crm_guard._clock import Wake
from crm_guard.locks import MemoryLockRegistry
from tests.bulk.world import CALLS, ORIGIN, Guarded, add_leads, guarded, prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest

PACKAGE = Path(crm_guard.__file__).parent
OUTSIDE = (str(PACKAGE / "simulator"), str(PACKAGE / "_diagnosis.py"))
FINALIZERS = ("_forget", "_Again.", "_Rewound.")
"""What runs when an object goes: Python prints what is raised there, and raises it nowhere."""
PHOTO = f"{ORIGIN}/crm/v8/Leads/{{}}/photo"


Line = tuple[str, int]


class Interrupting:
    """Raises `KeyboardInterrupt` where this thread comes to one of the lines of the guard.

    Not at the end of a `with` statement, though a trace function could: Python runs signal handlers after calls and
    at jumps, and so never between the last line of a block and the release of its lock.

    Attributes:
        at: The line: file and number.
        times: How often it is passed before.
        seen: The lines so far.
    """

    def __init__(self, at: Line | None = None, times: int = 0) -> None:
        self.at, self.times = at, times
        self.seen: list[Line] = []

    def begin(self) -> None:
        """Trace from here on, the frames under way included."""
        sys.settrace(self._call)
        frame = sys._getframe(1)
        while frame is not None:
            frame.f_trace = self._call(frame, "call", None)
            frame = frame.f_back

    def _call(self, frame: Any, event: str, value: object) -> Any:
        name = frame.f_code.co_filename
        outside = name.startswith(OUTSIDE) or frame.f_code.co_qualname.startswith(FINALIZERS)
        return self._line if name.startswith(str(PACKAGE)) and not outside else None

    def _line(self, frame: Any, event: str, value: object) -> Any:
        if event == "line" and not releases(frame):
            line = (frame.f_code.co_filename, frame.f_lineno)
            self.seen.append(line)
            if line == self.at:
                self.times -= 1
                if self.times < 0:
                    self.at = None
                    raise KeyboardInterrupt
        return self._line


def releases(frame: Any) -> bool:
    """Return whether a frame is about to leave a `with` block: to enter one, it loads something by name."""
    source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
    enters = dis.opname[frame.f_code.co_code[frame.f_lasti]] in {"LOAD_FAST", "LOAD_GLOBAL"}
    return source.startswith("with ") and not enters


def believed_locked(world: Guarded, ids: list[str]) -> Any:
    """Have another call say that records are locked; return it."""
    other = world.adapter.locks.waiter(clock=world.clock, wake=Wake(), interrupted=lambda: False)
    other.verdict(locked=[f"{ORIGIN}|{record_id}" for record_id in ids], free=())
    return other


def once(action: Callable[[], None]) -> Callable[[int], None]:
    def act(number: int) -> None:
        if number == 1:
            action()

    return act


class Scene:
    """One call, and all that it may leave behind. Every instance is a new one."""

    def __init__(self) -> None:
        self.registry = MemoryLockRegistry()
        self.world = guarded({"share_locks": True, "diagnose": True}, adapter={"lock_registry": self.registry})
        self.others: list[Any] = []
        self.ids = self.made()

    def made(self) -> list[str]:
        raise NotImplementedError

    def request(self) -> PreparedRequest:
        raise NotImplementedError

    def play(self, tracing: Interrupting) -> BaseException | None:
        """Make the call, traced from its first send or wait on; return what it raised."""
        request = self.request()
        self.begins_with(once(tracing.begin))
        try:
            self.world.adapter.send(request)
        except BaseException as exc:  # noqa: BLE001 (the test looks at it)
            return exc
        finally:
            sys.settrace(None)
        return None

    def begins_with(self, begin: Callable[[int], None]) -> None:
        self.world.transport.after = begin

    def check(self, exc: BaseException) -> None:
        report = get_report(exc)
        told = {found.record_id: found for found in report.outcomes}
        assert list(told) == self.ids
        rest = report.remaining_request()
        for record_id, found in told.items():
            written = self.world.engine.writes(record_id)
            assert found.uncertain or found.succeeded == bool(written), found
            assert written <= 1
            assert not (rest and written and record_id in f"{rest.url} {rest.body}")
        for other in self.others:
            other.leave()
        assert not self.registry.mutex.locked()
        assert not self.registry.table.locks
        assert not self.registry.table.paces
        assert not self.world.adapter.stops._wakes


class OneRecord(Scene):
    """A single record that is locked twice, and then written."""

    def made(self) -> list[str]:
        return add_leads(self.world.engine, [2])

    def request(self) -> PreparedRequest:
        return prepared("PUT", f"{ORIGIN}/crm/v8/Leads/{self.ids[0]}", b'{"data":[{"Company":"Zylker"}]}')


class Batch(Scene):
    """A batch of which one record is written at once, two later, and one not at all."""

    def made(self) -> list[str]:
        ids = [*add_leads(self.world.engine, [0, 1, 2]), "555000000000000099"]
        self.world.engine.add_record("Leads", ids[3], state="zia_vision_rejected")
        return ids

    def request(self) -> PreparedRequest:
        return CALLS["update"].of(self.ids)


class RefusedForGood(Scene):
    """A batch that ends in an error."""

    def made(self) -> list[str]:
        ids = ["555000000000000098", "555000000000000099"]
        for record_id, state in zip(ids, ("zia_vision_rejected", "record_locking"), strict=True):
            self.world.engine.add_record("Leads", record_id, state=state)
        return ids

    def request(self) -> PreparedRequest:
        return CALLS["delete"].of(self.ids)


class KnownToBeLocked(OneRecord):
    """A record of which another call says that it is locked."""

    def made(self) -> list[str]:
        ids = super().made()
        self.others.append(believed_locked(self.world, ids))
        return ids

    def begins_with(self, begin: Callable[[int], None]) -> None:
        self.world.clock.during_wait = begin


def lines_of(scene: Callable[[], Scene]) -> set[Line]:
    scene().play(Interrupting())  # what is done once per process
    whole = Interrupting()
    scene().play(whole)
    return set(whole.seen)


@pytest.mark.parametrize(
    ("scene", "beside"), [(OneRecord, []), (Batch, []), (RefusedForGood, [Batch]), (KnownToBeLocked, [OneRecord])]
)
def test_an_interrupt_at_any_line_brings_the_report_and_leaves_nothing_behind(
    scene: Callable[[], Scene], beside: list[Callable[[], Scene]]
) -> None:
    lines = lines_of(scene)
    assert len(lines) > 500
    for line in lines.difference(*map(lines_of, beside)):
        made = scene()
        exc = made.play(Interrupting(line))
        assert type(exc) is KeyboardInterrupt, line
        made.check(exc)
