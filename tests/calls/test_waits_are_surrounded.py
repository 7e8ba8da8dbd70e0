"""What a hook returns from a `WAITING` event surrounds the wait: it is entered, and left however the wait ends."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from crm_guard import EventKind, GiveUpReason, GuardError, RecordLockedError, get_report
from crm_guard.clock import Wake
from crm_guard.locks import MemoryLockRegistry, Unshared, WaitContext
from crm_guard.simulator import Simulator
from tests.calls.test_waiting_is_told import Steps, Writer
from tests.calls.world import CALLS, ORIGIN, Guarded, add_leads, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crm_guard import GuardEvent

BATCH = CALLS["update"]


class Around:
    """A context manager that writes down what happens to it.

    Args:
        diary: Where to.
        name: Its name there.
        on_enter: Called when it is entered.
        on_exit: Called when it is left, after that was written down.
        suppresses: What its `__exit__` returns.
    """

    def __init__(
        self,
        diary: list[Any],
        name: str = "a",
        *,
        on_enter: Callable[[], object] = int,
        on_exit: Callable[[], object] = int,
        suppresses: bool = False,
    ) -> None:
        self.diary, self.name, self.suppresses = diary, name, suppresses
        self.on_enter, self.on_exit = on_enter, on_exit

    def __enter__(self) -> None:
        self.diary.append(f"enter {self.name}")
        self.on_enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        assert (kind is None) == (error is None) == (trace is None)
        assert error is None or type(error) is kind
        self.diary.append(f"exit {self.name}" + (f" {kind.__name__}" if kind else ""))
        self.on_exit()
        return self.suppresses


class Gauge:
    """A hook that counts the waits that are under way."""

    def __init__(self) -> None:
        self.value = self.highest = self.entered = 0

    def __call__(self, event: GuardEvent) -> object:
        return self.track()

    @contextmanager
    def track(self) -> Iterator[None]:
        self.value += 1
        self.entered += 1
        self.highest = max(self.highest, self.value)
        try:
            yield
        finally:
            self.value -= 1


class Surrounded(Writer):
    """A call in a thread of its own whose waits are counted."""

    def __init__(self, *about: Any, **policy: Any) -> None:
        self.gauge = Gauge()
        super().__init__(*about, **policy)

    def hear(self, event: GuardEvent) -> object:
        super().hear(event)
        return self.gauge(event)


class Halt(BaseException):
    """Ends a program, as `gevent.GreenletExit` does."""


ENDS = [KeyboardInterrupt, SystemExit, Halt]


def raising(exc: BaseException | type[BaseException]) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise exc

    return fail


def on_waiting(result: Callable[[], object]) -> Callable[[Any], object]:
    """Return a hook that returns something from a `WAITING` event."""

    def hook(event: GuardEvent) -> object:
        return result() if event.kind is EventKind.WAITING else None

    return hook


def check_results(world: Guarded, ids: Sequence[str], told: object) -> None:
    """Check that the report is true of each record, and that none was written twice."""
    report = get_report(told)
    assert [found.record_id for found in report.outcomes] == list(ids)
    for found in report.outcomes:
        assert not found.uncertain
        assert world.engine.writes(found.record_id) == int(found.succeeded), found
    rest = report.remaining_request()
    left = [found.record_id for found in report.outcomes if found.retryable]
    assert [record_id for record_id in ids if rest and record_id in f"{rest.url} {rest.body!r}"] == left


def diary_of(world: Guarded, diary: list[Any]) -> None:
    """Have sends and waits written down, too."""
    world.transport.before = lambda number: diary.append(f"send {number}")
    world.clock.during_wait = lambda: diary.append("wait")


def test_it_is_entered_for_the_wait_and_left_before_the_resend() -> None:
    diary: list[Any] = []
    world = guarded(adapter={"hooks": [on_waiting(lambda: Around(diary))]})
    ids = add_leads(world.engine, [0, 1, 2])
    diary_of(world, diary)
    response = world.send(BATCH.of(ids))
    one = ["enter a", "wait", "exit a"]
    assert diary == ["send 1", *one, "send 2", *one, "send 3"]
    check_results(world, ids, response)


def test_it_is_left_before_the_resend_is_announced_and_credentials_are_renewed() -> None:
    diary: list[Any] = []

    def hook(event: GuardEvent) -> object:
        diary.append(event.kind.value)
        return Around(diary)

    world = guarded(adapter={"hooks": [hook], "refresh": lambda _: diary.append("refresh")})
    add_leads(world.engine, [1])
    assert world.send(BATCH.of(["555000000000000001"])).ok
    assert diary == ["locked", "waiting", "enter a", "exit a", "resending", "refresh", "unlocked"]


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind is not EventKind.WAITING])
def test_of_all_events_only_a_wait_is_surrounded(kind: EventKind) -> None:
    diary: list[Any] = []
    seen = []

    def hook(event: GuardEvent) -> object:
        seen.append(event.kind)
        return Around(diary) if event.kind is kind else None

    world = guarded({"attempts": 2}, adapter={"hooks": [hook]})
    ids = [*add_leads(world.engine, [0, 1, 9]), "555000000000000099"]
    world.engine.add_record("Leads", ids[3], state="record_locking")
    check_results(world, ids, world.send(BATCH.of(ids)))
    assert kind in seen
    assert diary == []


def test_the_wait_before_the_first_send_is_surrounded_too() -> None:
    diary: list[Any] = []
    registry = MemoryLockRegistry()
    hooks = [on_waiting(lambda: Around(diary))]
    world = guarded({"share_locks": True}, adapter={"lock_registry": registry, "hooks": hooks})
    (record_id,) = add_leads(world.engine, [0])
    other = registry.waiter(WaitContext(world.clock, Wake(), lambda: False))
    other.verdict(locked=[f"{ORIGIN}|{record_id}"], free=())
    world.transport.before = lambda number: diary.append(f"send {number}")
    assert world.send(BATCH.of([record_id])).ok
    assert diary == ["enter a", "exit a", "send 1"]
    assert world.engine.writes(record_id) == 1
    other.leave()


@pytest.mark.parametrize("kind", [*ENDS, ValueError, RecordLockedError, StopIteration, GeneratorExit])
@pytest.mark.parametrize("share", [False, True])
def test_it_is_left_with_whatever_ends_the_wait(kind: type[BaseException], share: bool) -> None:
    diary: list[Any] = []
    gauge = Gauge()
    hooks = [on_waiting(lambda: Around(diary, "a")), on_waiting(lambda: Around(diary, "b")), gauge]
    world = guarded({"share_locks": share}, adapter={"hooks": hooks, "lock_registry": MemoryLockRegistry()})
    ids = add_leads(world.engine, [0, 2])
    cause = kind()
    world.clock.during_wait = raising(cause)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 (of any kind)
        world.send(BATCH.of(ids))
    assert caught.value is cause or (type(caught.value) is GuardError and caught.value.__cause__ is cause)
    assert diary == ["enter a", "enter b", f"exit b {kind.__name__}", f"exit a {kind.__name__}"]
    assert (gauge.value, gauge.entered) == (0, 1)
    check_results(world, ids, caught.value)


@pytest.mark.parametrize("share", [False, True])
def test_it_is_left_when_the_wait_is_stopped(share: bool) -> None:
    diary: list[Any] = []
    hooks = [on_waiting(lambda: Around(diary))]
    world = guarded({"share_locks": share}, adapter={"hooks": hooks, "lock_registry": MemoryLockRegistry()})
    ids = add_leads(world.engine, [0, 2])
    world.clock.during_wait = world.adapter.stop_waiting
    response = world.send(BATCH.of(ids))
    assert diary == ["enter a", "exit a"]
    assert get_report(response).reason is GiveUpReason.STOPPED
    check_results(world, ids, response)


def test_one_that_stops_the_waits_as_it_is_entered_is_left_at_once() -> None:
    diary: list[Any] = []
    around = Around(diary)
    world = guarded(adapter={"hooks": [on_waiting(lambda: around)]})
    around.on_enter = world.adapter.stop_waiting
    ids = add_leads(world.engine, [0, 2])
    response = world.send(BATCH.of(ids))
    assert (diary, world.clock.waits) == (["enter a", "exit a"], [])
    assert get_report(response).reason is GiveUpReason.STOPPED
    check_results(world, ids, response)


@pytest.mark.parametrize("behind", [False, True])
def test_it_is_left_when_the_time_is_over(behind: bool) -> None:
    """A call that begins to wait is in time; one that waits for another's answer may run out of it."""
    diary: list[Any] = []
    registry = MemoryLockRegistry()
    world = guarded(
        {"share_locks": True, "timeout": 2.0 if behind else 4.0, "raise_on": "never"},
        adapter={"hooks": [on_waiting(lambda: Around(diary))], "lock_registry": registry},
    )
    (record_id,) = add_leads(world.engine, [9])
    other = registry.waiter(WaitContext(world.clock, Wake(), lambda: False))
    if behind:
        other.verdict(locked=[f"{ORIGIN}|{record_id}"], free=())
    response = world.send(BATCH.of([record_id]))
    assert diary == ["enter a", "exit a"]
    assert (get_report(response).reason, world.engine.writes(record_id)) == (GiveUpReason.TIMEOUT, 0)
    other.leave()


def test_it_is_left_where_the_lock_registry_fails() -> None:
    diary: list[Any] = []

    class Failing(MemoryLockRegistry):
        def waiter(self, context: WaitContext) -> Any:
            made = MagicMock()
            made.wait.side_effect = lambda *_: (context.announce(1.0), raising(LookupError)())
            return made

    hooks = [on_waiting(lambda: Around(diary))]
    world = guarded({"share_locks": True}, adapter={"hooks": hooks, "lock_registry": Failing()})
    ids = add_leads(world.engine, [0, 1])
    with pytest.raises(GuardError) as caught:
        world.send(BATCH.of(ids))
    assert type(caught.value.__cause__) is LookupError
    assert diary == ["enter a", "exit a LookupError"]
    check_results(world, ids, caught.value)


def test_all_are_left_where_a_later_hook_ends_the_wait_before_it_has_begun() -> None:
    diary: list[Any] = []
    hooks = [on_waiting(lambda: Around(diary)), on_waiting(raising(SystemExit)), on_waiting(lambda: Around(diary))]
    world = guarded(adapter={"hooks": hooks})
    ids = add_leads(world.engine, [0, 1])
    with pytest.raises(SystemExit) as caught:
        world.send(BATCH.of(ids))
    assert (diary, world.clock.waits) == (["enter a", "exit a SystemExit"], [])
    check_results(world, ids, caught.value)


class TestSeveral:
    def test_are_left_in_reverse_order(self) -> None:
        diary: list[Any] = []
        hooks = [on_waiting(lambda name=name: Around(diary, name)) for name in "abc"]  # type: ignore[misc]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [1])
        diary_of(world, diary)
        check_results(world, ids, world.send(BATCH.of(ids)))
        entered, left = [f"enter {name}" for name in "abc"], [f"exit {name}" for name in "cba"]
        assert diary == ["send 1", *entered, "wait", *left, "send 2"]

    def test_may_be_one_and_the_same(self) -> None:
        diary: list[Any] = []
        same = Around(diary)
        world = guarded(adapter={"hooks": [on_waiting(lambda: same), on_waiting(lambda: same)]})
        ids = add_leads(world.engine, [2])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert diary == ["enter a", "enter a", "exit a", "exit a"] * 2

    def test_may_be_hundreds(self) -> None:
        gauge = Gauge()
        hooks = [on_waiting(gauge.track) for _ in range(200)]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert (gauge.value, gauge.highest) == (0, 200)


class TestOneThatFails:
    def warnings(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    @pytest.mark.parametrize("error", [ValueError("jane@example.com"), AssertionError(), RecordLockedError()])
    def test_to_be_entered_is_logged_dropped_and_not_left(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        diary: list[Any] = []
        failing = on_waiting(lambda: Around(diary, "b", on_enter=raising(error)))
        hooks = [on_waiting(lambda: Around(diary, "a")), failing, on_waiting(lambda: Around(diary, "c"))]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [0, 1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert diary == ["enter a", "enter b", "enter c", "exit c", "exit a"]
        name = failing.__qualname__
        assert self.warnings(caplog) == [
            f"the hook {name} failed on entering its context manager: {type(error).__name__}"
        ]
        assert "jane" not in caplog.text

    @pytest.mark.parametrize("error", [ValueError("jane@example.com"), AssertionError(), RecordLockedError()])
    def test_to_be_left_is_logged_and_dropped_and_the_others_are_left(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        diary: list[Any] = []
        failing = on_waiting(lambda: Around(diary, "b", on_exit=raising(error)))
        hooks = [on_waiting(lambda: Around(diary, "a")), failing, on_waiting(lambda: Around(diary, "c"))]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [0, 1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert diary == ["enter a", "enter b", "enter c", "exit c", "exit b", "exit a"]
        name = failing.__qualname__
        assert self.warnings(caplog) == [
            f"the hook {name} failed on leaving its context manager: {type(error).__name__}"
        ]
        assert "jane" not in caplog.text

    def test_to_be_left_does_not_take_the_place_of_what_ended_the_wait(self) -> None:
        diary: list[Any] = []
        hooks = [on_waiting(lambda name=name: Around(diary, name, on_exit=raising(ValueError))) for name in "ab"]  # type: ignore[misc]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [0, 1])
        cause = KeyboardInterrupt()
        world.clock.during_wait = raising(cause)
        with pytest.raises(KeyboardInterrupt) as caught:
            world.send(BATCH.of(ids))
        assert caught.value is cause
        assert diary == ["enter a", "enter b", "exit b KeyboardInterrupt", "exit a KeyboardInterrupt"]
        check_results(world, ids, cause)

    @pytest.mark.parametrize("broken", ["hook", "enter", "exit"])
    def test_beside_a_broken_log_filter_costs_no_result(self, broken: str) -> None:
        hooks = {
            "hook": raising(ValueError),
            "enter": on_waiting(lambda: Around([], on_enter=raising(ValueError))),
            "exit": on_waiting(lambda: Around([], on_exit=raising(ValueError))),
        }
        world = guarded(adapter={"hooks": [hooks[broken]]})
        ids = add_leads(world.engine, [0, 1, 2])
        logger = logging.getLogger("crm_guard")
        fail = raising(OSError)
        logger.addFilter(fail)
        try:
            response = world.send(BATCH.of(ids))
        finally:
            logger.removeFilter(fail)
        check_results(world, ids, response)
        assert [found.succeeded for found in get_report(response).outcomes] == [True] * 3

    def test_and_cannot_even_tell_its_name_costs_no_result(self, caplog: pytest.LogCaptureFixture) -> None:
        class Proxy:
            """As one of werkzeug's outside of its context."""

            def __getattr__(self, name: str) -> Any:
                raise RuntimeError

            def __call__(self, event: GuardEvent) -> Any:
                return self.anything

        world = guarded(adapter={"hooks": [Proxy()]})
        ids = add_leads(world.engine, [0, 1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        name = Proxy.__qualname__
        assert f"the hook {name} failed on a waiting event: RuntimeError" in self.warnings(caplog)

    def test_at_every_wait_costs_neither_waits_nor_results(self) -> None:
        hooks = [
            on_waiting(lambda: Around([], on_enter=raising(OSError))),
            on_waiting(lambda: Around([], on_exit=raising(OSError))),
        ]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [0, 1, 3, 7])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert [world.engine.writes(record_id) for record_id in ids] == [1] * 4


class TestOneThatWouldSuppress:
    @pytest.mark.parametrize("kind", [*ENDS, ValueError])
    def test_what_ended_the_wait_cannot(self, kind: type[BaseException]) -> None:
        diary: list[Any] = []
        outer = on_waiting(lambda: Around(diary, "a"))
        world = guarded(adapter={"hooks": [outer, on_waiting(lambda: Around(diary, "b", suppresses=True))]})
        ids = add_leads(world.engine, [0, 1])
        world.clock.during_wait = raising(kind)
        with pytest.raises((kind, GuardError)) as caught:
            world.send(BATCH.of(ids))
        assert diary == ["enter a", "enter b", f"exit b {kind.__name__}", f"exit a {kind.__name__}"]
        assert len(world.transport.sent) == 1
        check_results(world, ids, caught.value)

    def test_changes_nothing_where_there_is_nothing_to_suppress(self) -> None:
        world = guarded(adapter={"hooks": [on_waiting(lambda: Around([], suppresses=True))]})
        ids = add_leads(world.engine, [0, 2])
        check_results(world, ids, world.send(BATCH.of(ids)))


class TestAGeneratorAsAHook:
    def test_surrounds_the_waits_and_is_not_begun_for_other_events(self) -> None:
        diary: list[Any] = []

        @contextmanager
        def hook(event: GuardEvent) -> Iterator[None]:
            diary.append(f"enter {event.kind.value} {event.pending}")
            yield
            diary.append("exit")

        world = guarded(adapter={"hooks": [hook]})
        ids = add_leads(world.engine, [0, 1, 2])
        diary_of(world, diary)
        check_results(world, ids, world.send(BATCH.of(ids)))
        first, second = (["enter waiting 2", "wait", "exit"], ["enter waiting 1", "wait", "exit"])
        assert diary == ["send 1", *first, "send 2", *second, "send 3"]

    @pytest.mark.parametrize("kind", [*ENDS, ValueError])
    def test_that_catches_what_ends_the_wait_cannot_suppress_it(self, kind: type[BaseException]) -> None:
        caught_inside = []

        @contextmanager
        def hook(event: GuardEvent) -> Iterator[None]:
            try:
                yield
            except BaseException as exc:  # noqa: BLE001 (that is what it is about)
                caught_inside.append(exc)

        world = guarded(adapter={"hooks": [hook]})
        ids = add_leads(world.engine, [0, 1])
        cause = kind()
        world.clock.during_wait = raising(cause)
        with pytest.raises((kind, GuardError)) as caught:
            world.send(BATCH.of(ids))
        assert caught_inside == [cause]
        assert cause in {caught.value, caught.value.__cause__}
        check_results(world, ids, caught.value)

    def test_that_does_not_yield_or_yields_twice_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        @contextmanager
        def never(event: GuardEvent) -> Iterator[None]:
            yield from ()

        @contextmanager
        def twice(event: GuardEvent) -> Iterator[None]:
            yield
            yield

        world = guarded(adapter={"hooks": [never, twice]})
        ids = add_leads(world.engine, [0, 1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        told = [record.getMessage() for record in caplog.records if "failed on" in record.getMessage()]
        assert told == [
            f"the hook {never.__qualname__} failed on entering its context manager: RuntimeError",
            f"the hook {twice.__qualname__} failed on leaving its context manager: RuntimeError",
        ]

    def test_may_set_a_context_variable_for_the_wait(self) -> None:
        waits: ContextVar[str] = ContextVar("waits", default="")
        seen = []

        @contextmanager
        def hook(event: GuardEvent) -> Iterator[None]:
            token = waits.set(event.path)
            yield
            waits.reset(token)

        world = guarded(adapter={"hooks": [hook]})
        ids = add_leads(world.engine, [1])
        world.clock.during_wait = lambda: seen.append(waits.get())
        world.transport.before = lambda _: seen.append(waits.get())
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert seen == ["", "/crm/v8/Leads", ""]
        assert waits.get() == ""


class TestWhatAHookReturns:
    @pytest.mark.parametrize(
        "result", [None, 0, True, "text", object(), [Around([])], Around, nullcontext, lambda: Around([]), iter(())]
    )
    def test_that_is_no_context_manager_is_left_alone(self, result: Any, caplog: pytest.LogCaptureFixture) -> None:
        world = guarded(adapter={"hooks": [lambda _: result]})
        ids = add_leads(world.engine, [0, 1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert "failed on" not in caplog.text

    def test_counts_by_its_class_as_in_a_with_statement(self, caplog: pytest.LogCaptureFixture) -> None:
        class Half:
            def __enter__(self) -> None:
                raise AssertionError

        by_instance = Half.__new__(type("Bare", (), {}))
        by_instance.__enter__ = by_instance.__exit__ = raising(AssertionError)
        world = guarded(adapter={"hooks": [lambda _: by_instance, lambda _: Half()]})
        ids = add_leads(world.engine, [0, 1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert "failed on" not in caplog.text

    def test_may_be_a_stack_of_others(self) -> None:
        diary: list[Any] = []

        def stacked() -> ExitStack:
            stack = ExitStack()
            for name in "ab":
                stack.enter_context(Around(diary, name))
            return stack

        world = guarded(adapter={"hooks": [on_waiting(stacked)]})
        ids = add_leads(world.engine, [1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert diary == ["enter a", "enter b", "exit b", "exit a"]

    def test_may_be_a_mock(self) -> None:
        hook = MagicMock()
        world = guarded(adapter={"hooks": [hook]})
        ids = add_leads(world.engine, [1])
        check_results(world, ids, world.send(BATCH.of(ids)))
        assert hook.return_value.__enter__.call_count == hook.return_value.__exit__.call_count == 1


class TestAWaitThatIsAnnouncedAgain:
    class Announcing(Unshared):
        """Announces each wait several times."""

        def __init__(self, times: int, then: Callable[[], object] = int) -> None:
            self.times, self.then = times, then

        def waiter(self, context: WaitContext) -> Any:
            made = MagicMock()

            def wait(keys: Any, delay: float, deadline: float) -> Any:
                for number in range(self.times):
                    context.announce(float(number))
                self.then()
                return frozenset(keys)

            made.wait.side_effect = wait
            return made

    def world(self, hook: Any, times: int, then: Callable[[], object] = int) -> Guarded:
        adapter = {"hooks": [hook], "lock_registry": self.Announcing(times, then)}
        return guarded({"share_locks": True}, adapter=adapter)

    def test_says_so_and_nests_and_is_left_as_often(self) -> None:
        diary: list[Any] = []
        events: list[GuardEvent] = []

        def hook(event: GuardEvent) -> object:
            if event.kind is not EventKind.WAITING:
                return None
            events.append(event)
            return Around(diary, str(len(events)))

        world = self.world(hook, 3)
        ids = add_leads(world.engine, [2])
        world.transport.before = lambda number: diary.append(f"send {number}")
        check_results(world, ids, world.send(BATCH.of(ids)))
        first, second = (
            [*(f"enter {n}" for n in names), *(f"exit {n}" for n in reversed(names))] for names in ("123", "456")
        )
        assert diary == ["send 1", *first, "send 2", *second, "send 3"]
        assert [(event.again, event.delay) for event in events] == [(False, 0), (True, 1), (True, 2)] * 2

    @pytest.mark.parametrize("kind", [*ENDS, ValueError])
    def test_is_left_as_often_whatever_ends_it(self, kind: type[BaseException]) -> None:
        gauge = Gauge()
        world = self.world(gauge, 5, raising(kind))
        ids = add_leads(world.engine, [0, 2])
        with pytest.raises((kind, GuardError)) as caught:
            world.send(BATCH.of(ids))
        assert (gauge.value, gauge.highest) == (0, 5)
        check_results(world, ids, caught.value)

    def test_says_so_of_the_calls_that_really_wait_for_another_one(self) -> None:
        steps, registry = Steps(), MemoryLockRegistry()
        with Simulator(clock=steps) as crm:
            lead = crm.add_record("Leads", locked_for=1000.0)
            patient: dict[str, Any] = {"attempts": 1000, "timeout": 9000.0}
            first = Surrounded(crm, steps, registry, lead, **patient)
            first.heard("waiting")
            second = Surrounded(crm, steps, registry, lead, wait_initial=1000.0, wait_max=1000.0, **patient)
            second.heard("waiting")
            for number in range(2, 26):
                steps.pass_on(3.0, sleepers=2)
                first.heard("waiting", number)
            told = second.heard("waiting", 3)
            for writer in (first, second):
                writer.adapter.stop_waiting()
            assert {first.finished(), second.finished()} == {GiveUpReason.STOPPED}
        assert {event.again for event in first.heard("waiting")} == {False}, "each wait of its own is a new one"
        assert [event.again for event in told] == [False, *[True] * (len(told) - 1)]
        assert (first.gauge.value, first.gauge.highest) == (0, 1)
        assert (second.gauge.value, second.gauge.highest) == (0, len(second.heard("waiting")))


class TestWhatEndsTheProgram:
    """`SystemExit` and the like: the results so far are kept, and nothing is written twice."""

    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("share", [False, True])
    @pytest.mark.parametrize("kind", list(EventKind))
    def test_in_a_hook_keeps_the_results(self, kind: EventKind, share: bool, end: type[BaseException]) -> None:
        gauge, left = Gauge(), []

        def leave(event: GuardEvent) -> object:
            if event.kind is kind:
                left.append(event)
                raise end
            return None

        world = guarded(
            {"attempts": 3, "share_locks": share},
            adapter={"hooks": [gauge, leave], "lock_registry": MemoryLockRegistry()},
        )
        ids = [*add_leads(world.engine, [0, 1, 2, 9]), "555000000000000099"]
        world.engine.add_record("Leads", ids[4], state="record_locking")
        with pytest.raises(end) as caught:
            world.send(BATCH.of(ids))
        assert left
        assert gauge.value == 0
        check_results(world, ids, caught.value)

    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("number", [1, 2, 3])
    @pytest.mark.parametrize("where", ["on_enter", "on_exit"])
    def test_in_a_context_manager_keeps_the_results(
        self, where: str, number: int, end: type[BaseException]
    ) -> None:
        diary: list[Any] = []
        waits = iter(range(1, 10))

        def failing() -> Around:
            return Around(diary, "b", **({where: raising(end)} if next(waits) == number else {}))  # type: ignore[arg-type]

        gauge = Gauge()
        hooks = [gauge, on_waiting(lambda: Around(diary, "a")), on_waiting(failing)]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [0, 1, 2, 3])
        with pytest.raises(end) as caught:
            world.send(BATCH.of(ids))
        assert [world.engine.writes(record_id) for record_id in ids] == [int(n < number) for n in range(4)]
        assert get_report(caught.value).reason is GiveUpReason.INTERRUPTED
        assert gauge.value == 0
        assert sum(entry.startswith("enter a") for entry in diary) == number
        assert sum(entry.startswith("exit a") for entry in diary) == number
        lefts = number if where == "on_exit" else number - 1
        assert sum(entry.startswith("exit b") for entry in diary) == lefts
        assert len(world.transport.sent) == number
        check_results(world, ids, caught.value)

    def test_in_each_of_several_context_managers_leaves_them_all_once(self) -> None:
        diary: list[Any] = []
        hooks = [on_waiting(lambda name=name: Around(diary, name, on_exit=raising(SystemExit))) for name in "abc"]  # type: ignore[misc]
        world = guarded(adapter={"hooks": hooks})
        ids = add_leads(world.engine, [0, 1])
        with pytest.raises(SystemExit) as caught:
            world.send(BATCH.of(ids))
        assert [entry.split()[:2] for entry in diary[3:]] == [["exit", "c"], ["exit", "b"], ["exit", "a"]]
        check_results(world, ids, caught.value)

    @pytest.mark.parametrize("end", ENDS)
    def test_in_a_context_manager_wins_over_an_error_that_ended_the_wait(self, end: type[BaseException]) -> None:
        diary: list[Any] = []
        world = guarded(adapter={"hooks": [on_waiting(lambda: Around(diary, on_exit=raising(end)))]})
        ids = add_leads(world.engine, [0, 1])
        world.clock.during_wait = raising(ValueError)
        with pytest.raises(end) as caught:
            world.send(BATCH.of(ids))
        assert diary == ["enter a", "exit a ValueError"]
        check_results(world, ids, caught.value)

    def test_in_a_context_manager_while_the_call_waits_before_its_first_send_sends_nothing(self) -> None:
        registry = MemoryLockRegistry()
        hooks = [on_waiting(lambda: Around([], on_exit=raising(SystemExit)))]
        world = guarded({"share_locks": True}, adapter={"lock_registry": registry, "hooks": hooks})
        (record_id,) = add_leads(world.engine, [0])
        other = registry.waiter(WaitContext(world.clock, Wake(), lambda: False))
        other.verdict(locked=[f"{ORIGIN}|{record_id}"], free=())
        with pytest.raises(SystemExit) as caught:
            world.send(BATCH.of([record_id]))
        report = get_report(caught.value)
        assert (world.transport.sent, report.attempts, report.reason) == ([], 0, GiveUpReason.INTERRUPTED)
        check_results(world, [record_id], caught.value)
        other.leave()
        assert not registry.table.locks


@pytest.mark.parametrize("refusals", [[1], [5], [0, 1, 2, 3], [3, 3, 3], [1, 0, 9], [9, 9]])
@pytest.mark.parametrize("policy", [{}, {"attempts": 3}, {"timeout": 12.0}, {"attempts": 1}, {"timeout": 0}])
@pytest.mark.parametrize("share", [False, True])
def test_a_gauge_of_waits_is_at_zero_after_every_call(
    refusals: list[int], policy: dict[str, Any], share: bool
) -> None:
    gauge = Gauge()
    world = guarded(
        {**policy, "share_locks": share, "raise_on": "never"},
        adapter={"hooks": [gauge], "lock_registry": MemoryLockRegistry()},
    )
    ids = add_leads(world.engine, refusals)
    highest = []
    world.transport.before = lambda _: highest.append(gauge.value)
    world.clock.during_wait = lambda: highest.append(-gauge.value)
    response = world.send(BATCH.of(ids))
    assert gauge.value == 0
    assert max(highest) == 0, "no request was under way meanwhile"
    assert gauge.entered == len(world.clock.waits) == -sum(highest)
    check_results(world, ids, response)
