"""Ctrl-C at any line between the first send and the return: what is known comes along, and nothing stays behind."""

from __future__ import annotations

import dis
import functools
import linecache
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import crm_guard
from crm_guard import EventKind, GiveUpReason, get_report
from crm_guard._transport.peers import peer_groups
from crm_guard.clock import Wake
from crm_guard.locks import MemoryLockRegistry, WaitContext
from tests.calls.world import CALLS, ORIGIN, Guarded, add_leads, guarded, prepared

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from requests import PreparedRequest

PACKAGE = Path(crm_guard.__file__).parent
OUTSIDE = (str(PACKAGE / "simulator"), str(PACKAGE / "testing.py"), str(PACKAGE / "_transport" / "probe_thread.py"))
FINALIZERS = ("_forget", "BufferedResponse.", "_Rewound.")
"""What runs when an object goes: Python prints what is raised there, and raises it nowhere."""


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
        """Trace from here on, the frames of the guard that are under way included."""
        sys.settrace(self._call)
        frame = sys._getframe(1)
        while frame is not None:
            if line := self._call(frame, "call", None):
                frame.f_trace = line
            frame = frame.f_back

    def _call(self, frame: Any, event: str, value: object) -> Any:
        code = frame.f_code
        if not of_guard(code.co_filename) or code.co_qualname.startswith(FINALIZERS):
            return None
        return self._line if self.at is None or has_line(code, *self.at) else None

    def _line(self, frame: Any, event: str, value: object) -> Any:
        if event == "line":
            line = (frame.f_code.co_filename, frame.f_lineno)
            if self.at is None and not releases(frame):
                self.seen.append(line)
            elif line == self.at and not releases(frame):
                self.times -= 1
                if self.times < 0:
                    self.at = None
                    raise KeyboardInterrupt
        return self._line


@functools.cache
def of_guard(name: str) -> bool:
    """Return whether a file is the guard's."""
    return name.startswith(str(PACKAGE)) and not name.startswith(OUTSIDE)


def has_line(code: CodeType, name: str, number: int) -> bool:
    """Return whether a line is one of this function: where it is not, nobody needs to look at the others."""
    return name == code.co_filename and number in lines_in(code)


@functools.cache
def lines_in(code: CodeType) -> frozenset[int | None]:
    """Return the numbers of the lines of a function."""
    return frozenset(line for _, _, line in code.co_lines())


def releases(frame: Any) -> bool:
    """Return whether a frame is about to leave a `with` block: to enter one, it loads something by name."""
    source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
    return source.startswith("with ") and dis.opname[frame.f_code.co_code[frame.f_lasti]] not in {
        "LOAD_FAST",
        "LOAD_GLOBAL",
    }


def came_through_a_send(exc: BaseException) -> bool:
    """Return whether an exception came from inside of a send, or from the line that was about to begin it."""
    passed = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(exc.__traceback__)]
    return any("transmit(" in linecache.getline(*line) for line in passed)


def believed_locked(world: Guarded, ids: list[str]) -> Any:
    """Have another call say that records are locked; return it."""
    other = world.adapter.locks.waiter(WaitContext(world.clock, Wake(), lambda: False))
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
        peer_groups.reset()
        self.registry = MemoryLockRegistry()
        self.world = guarded({"share_locks": True, "diagnose": True}, adapter={"lock_registry": self.registry})
        self.others: list[Any] = []
        self.ids = self.made()

    def made(self) -> list[str]:
        raise NotImplementedError

    def request(self) -> PreparedRequest:
        raise NotImplementedError

    @property
    def read(self) -> bool:
        """Whether the body of the last answer was read to its end."""
        responses = self.world.transport.responses
        sent = len(self.world.transport.sent)
        return len(responses) == sent > 0 and isinstance(vars(responses[-1]).get("_content"), bytes)

    def play(self, tracing: Interrupting) -> BaseException | None:
        """Make the call, traced from its first send or wait on; return what it raised."""
        request, before = self.request(), sys.gettrace()  # of a measurement of coverage, say
        self.begins_with(once(tracing.begin))
        try:
            self.world.adapter.send(request)
        except BaseException as exc:  # noqa: BLE001 (the test looks at it)
            return exc
        finally:
            sys.settrace(before)
        return None

    def begins_with(self, begin: Callable[[int], None]) -> None:
        self.world.transport.after = begin

    def check(self, exc: BaseException) -> None:
        report = get_report(exc)
        told = {found.record_id: found for found in report.outcomes}
        if self.read and not came_through_a_send(exc):  # what has come counts
            assert not any(found.uncertain for found in report.outcomes)
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
        assert not self.registry.table.turns.limiters
        assert not peer_groups._of
        assert not self.world.adapter.context.stops._wakes


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


class Surrounded(OneRecord):
    """A record whose waits are surrounded by context managers."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = self.left = 0
        context = self.world.adapter.context
        self.world.adapter.context = replace(context, hooks=(lambda _: self,) * 3)

    def __enter__(self) -> None:
        self.entered += 1

    def __exit__(self, *_: object) -> None:
        self.left += 1

    def check(self, exc: BaseException) -> None:
        super().check(exc)
        assert 0 <= self.entered - self.left <= 1, "one may be lost, as in a `with` statement"


class KnownToBeLocked(OneRecord):
    """A record of which another call says that it is locked."""

    def made(self) -> list[str]:
        ids = super().made()
        self.others.append(believed_locked(self.world, ids))
        return ids

    def begins_with(self, begin: Callable[[int], None]) -> None:
        self.world.clock.during_wait = lambda: begin(len(self.world.clock.waits))


@functools.cache
def lines_of(scene: Callable[[], Scene]) -> set[Line]:
    scene().play(Interrupting())  # what is done once per process
    whole = Interrupting()
    scene().play(whole)
    return set(whole.seen)


@pytest.mark.parametrize(
    ("scene", "beside"),
    [
        (OneRecord, []),
        (Batch, [OneRecord]),
        (RefusedForGood, [OneRecord, Batch]),
        (KnownToBeLocked, [OneRecord]),
        (Surrounded, [OneRecord]),
    ],
)
def test_an_interrupt_at_any_line_brings_the_report_and_leaves_nothing_behind(
    scene: Callable[[], Scene], beside: list[Callable[[], Scene]]
) -> None:
    """Every line in the first scene that comes to it, and every eighth one in the others, too."""
    lines = lines_of(scene)
    assert len(lines) > 500
    new = lines.difference(*map(lines_of, beside))
    new |= {line for line in lines if scene is Surrounded and line[0].endswith("telling.py")}
    for line in sorted(new) + sorted(lines - new)[::8]:
        made = scene()
        exc = made.play(Interrupting(line))
        assert type(exc) is KeyboardInterrupt, line
        made.check(exc)


class Stop(BaseException):
    """Made once, and raised again and again, as `gevent.Timeout` and the like may be."""


STOP = Stop()


def stopped_at(event_kind: EventKind, times: int = 1) -> Callable[[Any], None]:
    """Return a hook that ends the call at the nth event of a kind."""
    left = [times]

    def stop(event: Any) -> None:
        left[0] -= event.kind is event_kind
        if event.kind is event_kind and left[0] == 0:
            raise STOP

    return stop


def ended(world: Guarded, request: PreparedRequest, kind: type[BaseException]) -> BaseException:
    with pytest.raises(kind) as caught:
        world.send(request)
    return caught.value


def test_an_exception_that_ended_another_call_before_tells_of_this_one() -> None:
    for times, written in ((1, [False, False]), (2, [True, False])):
        world = guarded(adapter={"hooks": [stopped_at(EventKind.WAITING, times)]})
        ids = add_leads(world.engine, [1, 2])
        report = get_report(ended(world, CALLS["update"].of(ids), Stop))
        assert [found.succeeded for found in report.outcomes] == written
        rest = str(report.remaining_request().body)
        assert [record_id in rest for record_id in ids] == [not done for done in written]


def test_a_call_that_refresh_makes_does_not_put_its_report_in_place_of_the_outer_one() -> None:
    other = guarded(adapter={"hooks": [stopped_at(EventKind.WAITING)]})
    add_leads(other.engine, [1])
    nested = CALLS["update"].of(["555000000000000001"])
    world = guarded(adapter={"refresh": lambda _: other.send(nested)})
    ids = add_leads(world.engine, [0, 1])
    report = get_report(ended(world, CALLS["update"].of(ids), Stop))
    assert [(found.succeeded, found.retryable) for found in report.outcomes] == [(True, False), (False, True)]


@pytest.mark.parametrize("kind", [EventKind.LOCKED, EventKind.WAITING, EventKind.RESENDING, EventKind.UNLOCKED])
def test_a_hook_that_ends_the_program_each_time_loses_nothing(kind: EventKind) -> None:
    def leave(event: Any) -> None:
        if event.kind in {kind, EventKind.GAVE_UP}:
            raise SystemExit(1)

    world = guarded(adapter={"hooks": [leave]})
    ids = add_leads(world.engine, [0, 1, 2])
    report = get_report(ended(world, CALLS["update"].of(ids), SystemExit))
    assert [found.succeeded for found in report.outcomes] == [world.engine.writes(name) == 1 for name in ids]
    assert report.reason is GiveUpReason.INTERRUPTED


@pytest.mark.parametrize("stream", [False, True])
def test_nor_does_one_where_the_call_waited_before_its_first_send(stream: bool) -> None:
    def leave(event: Any) -> None:
        if event.kind is EventKind.UNLOCKED:
            raise SystemExit(1)

    world = guarded({"share_locks": True}, adapter={"hooks": [leave], "lock_registry": MemoryLockRegistry()})
    (record_id,) = add_leads(world.engine, [0])
    other = believed_locked(world, [record_id])
    with pytest.raises(SystemExit) as caught:
        world.adapter.send(CALLS["update"].of([record_id]), stream=stream)
    (found,) = get_report(caught.value).outcomes
    assert (found.succeeded, found.uncertain, world.engine.writes(record_id)) == (True, False, 1)
    other.leave()


def test_an_interrupt_before_anything_was_sent_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = guarded({"share_locks": True}, adapter={"lock_registry": MemoryLockRegistry()})
    (record_id,) = add_leads(world.engine, [0])
    other = believed_locked(world, ["555000000000000077"])

    def interrupted(registry: Any, keys: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryLockRegistry, "knows", interrupted)
    report = get_report(ended(world, CALLS["update"].of([record_id]), KeyboardInterrupt))
    assert (report.attempts, report.credits_spent, report.outcomes) == (0, 0, ())
    assert not world.engine.calls
    other.leave()


def test_a_report_that_cannot_be_made_does_not_swallow_the_interrupt() -> None:
    class Failing(MemoryLockRegistry):
        def waiter(self, **about: Any) -> Any:
            raise LookupError

    world = guarded({"share_locks": True}, adapter={"lock_registry": Failing()})
    (record_id,) = add_leads(world.engine, [0])

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    world.transport.after = interrupt
    raised = ended(world, CALLS["update"].of([record_id]), KeyboardInterrupt)
    assert get_report(raised).outcomes == ()


@pytest.mark.parametrize("stream", [False, True])
def test_an_inner_adapter_that_gives_one_response_twice_has_it_left_open(stream: bool) -> None:
    world = guarded({"attempts": 2, "raise_on": "never"})
    (record_id,) = add_leads(world.engine, [9])
    send, given = world.transport.send, []

    def same(request: PreparedRequest, **options: Any) -> Any:
        given.append(given[0] if given else send(request, **options))
        return given[0]

    world.transport.send = same  # type: ignore[method-assign]
    url = f"{ORIGIN}/crm/v8/Leads/{record_id}"
    response = world.adapter.send(prepared("PUT", url, b'{"data":[{"Company":"Zylker"}]}'), stream=stream)
    assert (len(given), response.json()["data"][0]["code"]) == (2, "RECORD_LOCKED")


@pytest.mark.parametrize("name", ["update", "delete", "mass_update"])
def test_an_interrupt_in_the_first_send_tells_that_nothing_is_known(name: str) -> None:
    world = guarded()
    ids = add_leads(world.engine, [0, 0])

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    world.transport.after = interrupt
    report = get_report(ended(world, CALLS[name].of(ids), KeyboardInterrupt))
    assert [(found.record_id, found.uncertain, found.succeeded) for found in report.outcomes] == [
        (record_id, True, False) for record_id in ids
    ]
    assert (report.attempts, report.reason) == (1, GiveUpReason.INTERRUPTED)
    assert report.remaining_request() is None


@pytest.mark.parametrize("path", ["Leads/555000000000000001", "Leads/555000000000000001/photo", "settings/modules"])
def test_an_interrupted_read_has_nothing_to_tell(path: str) -> None:
    world = guarded()
    world.transport.after = once(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    report = get_report(ended(world, prepared("GET", f"{ORIGIN}/crm/v8/{path}"), KeyboardInterrupt))
    assert (report.outcomes, report.blocked) == ((), ())
