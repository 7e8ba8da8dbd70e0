"""The hooks of the process beside those of a guard: who is called, in which order, and what is refused."""

import threading
from functools import partial
from unittest.mock import Mock

import pytest
import requests

from crm_guard import EventKind, GuardAdapter, GuardEvent, GuardSettings, RecordLockedError, get_report, mount_guard
from crm_guard._transport.hooks import check_hooks, hooks_beside, replace_process_hooks
from crm_guard._transport.peers import peer_groups
from crm_guard._transport.telling import Telling

ORIGIN = "https://www.zohoapis.com"
URL = f"{ORIGIN}/crm/v8/Leads/1"
EVENT = GuardEvent(kind=EventKind.LOCKED, method="PUT", path="/")
LOCK = {"code": "RECORD_LOCKED", "status": "error", "details": {"id": "1", "action": "zia_vision_processing"}}
LOCKED = (400, {"data": [LOCK]})
DONE = (200, {"data": [{"code": "SUCCESS", "status": "success", "details": {"id": "1"}}]})
KINDS = ["locked", "waiting", "resending", "unlocked"]


@pytest.fixture(autouse=True)
def shared():
    """Replace the hooks of the process, for the length of a test."""
    before = replace_process_hooks(())
    yield lambda *hooks: replace_process_hooks(hooks)
    replace_process_hooks(before)


class Equal:
    """A hook that is equal to every other one."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        self.events.append(event)

    def __eq__(self, other):
        return True

    __hash__ = None


class TestTheHooksOfTheProcess:
    def test_are_called_before_those_of_a_guard(self, canned, shared):
        called = []
        shared(lambda _: called.append("first"), lambda _: called.append("second"))
        canned(LOCKED, DONE, hooks=[lambda _: called.append("own")]).put(URL, json={})
        assert called == ["first", "second", "own"] * len(KINDS)

    def test_hear_of_every_guard_that_exists_already(self, canned, shared, events):
        session = canned(LOCKED, DONE)
        heard = []
        shared(heard.append)
        session.put(URL, json={})
        assert [event.kind.value for event in heard] == KINDS
        assert heard == events

    def test_hear_nothing_any_more_once_they_are_replaced(self, canned, shared):
        old, new = [], []
        shared(old.append)

        def replace(event):
            if event.kind is EventKind.WAITING:
                shared(new.append)

        canned(LOCKED, DONE, hooks=[replace]).put(URL, json={})
        assert [event.kind.value for event in old] == KINDS[:2]
        assert [event.kind.value for event in new] == KINDS[2:]

    def test_come_back_from_the_function_that_replaces_them(self, shared):
        first, second = Mock(), Mock()
        assert replace_process_hooks((first,)) == ()
        assert replace_process_hooks((second, first)) == (first,)
        assert replace_process_hooks(()) == (second, first)
        assert hooks_beside(()) == ()

    def test_surround_a_wait_around_those_of_a_guard(self, canned, shared, clock):
        diary = []

        class Around:
            def __init__(self, name):
                self.name = name

            def __call__(self, event):
                return self

            def __enter__(self):
                diary.append(f"enter {self.name}")

            def __exit__(self, *_):
                diary.append(f"exit {self.name}")

        shared(Around("shared"))
        clock.during_wait = lambda: diary.append("wait")
        canned(LOCKED, DONE, hooks=[Around("own")]).put(URL, json={})
        assert diary == ["enter shared", "enter own", "wait", "exit own", "exit shared"]

    def test_that_fail_cost_nothing_and_are_named(self, canned, shared, events, caplog):
        def fail(event):
            raise LookupError

        shared(fail)
        assert canned(LOCKED, DONE).put(URL, json={}).ok
        assert events.kinds() == KINDS
        told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert told == [f"the hook {fail.__qualname__} failed on a {kind} event: LookupError" for kind in KINDS]

    def test_that_end_the_program_keep_the_results(self, crm, guard, leads, shared):
        def leave(event):
            if event.kind is EventKind.UNLOCKED:
                raise SystemExit

        shared(leave)
        ids = [crm.add_record("Leads", refusals=count or None) for count in (0, 1, 2)]
        with pytest.raises(SystemExit) as caught:
            guard().put(leads, json={"data": [{"id": lead, "Company": "Z"} for lead in ids]})
        report = get_report(caught.value)
        assert [found.succeeded for found in report.outcomes] == [True, True, False]
        assert [crm.writes(lead) for lead in ids] == [1, 1, 0]

    def test_may_be_replaced_by_one_thread_while_others_are_told(self, shared, together):
        heard = [[] for _ in range(4)]
        own = [[] for _ in range(4)]

        def tell(number):
            telling = Telling((own[number].append,), ORIGIN)
            for _ in range(500):
                telling.tell(EVENT)

        def replace():
            for _ in range(500):
                for one in heard:
                    shared(one.append)

        assert together([*(partial(tell, number) for number in range(4)), replace]) == [None] * 5
        assert [len(events) for events in own] == [500] * 4
        assert sum(map(len, heard)) <= 2000


class TestAHookThatIsBoth:
    def test_is_called_once_in_the_place_of_the_process(self, canned, shared):
        called = []

        def both(event):
            called.append("both")

        shared(both)
        canned(LOCKED, DONE, hooks=[lambda _: called.append("own"), both, both]).put(URL, json={})
        assert called == ["both", "own"] * len(KINDS)

    def test_may_be_a_method_which_is_another_object_each_time(self, shared):
        heard = []
        shared(heard.append)
        Telling((heard.append,), ORIGIN).tell(EVENT)
        assert heard == [EVENT]

    def test_is_told_by_equality(self, shared):
        one, other = Equal(), Equal()
        shared(one)
        assert hooks_beside((other, print)) == (one,)

    def test_that_cannot_be_compared_counts_as_another(self, shared):
        class Odd(Equal):
            def __eq__(self, other):
                raise RuntimeError

            __hash__ = None

        one, other = Odd(), Odd()
        shared(one)
        assert [hook is other for hook in hooks_beside((other,))] == [False, True]

    def test_is_called_as_often_as_a_guard_names_it_where_the_process_does_not(self, canned, events):
        canned(LOCKED, DONE, hooks=[events]).put(URL, json={})
        assert events.kinds() == [kind for kind in KINDS for _ in range(2)]

    def test_costs_nothing_where_the_process_has_none(self):
        own = (print, repr)
        assert hooks_beside(own) is own


@pytest.fixture(autouse=True)
def _no_peers():
    """What others left without an end would silence these."""
    peer_groups.reset()
    yield
    peer_groups.reset()


async def awaited(event):
    """Nobody would await it."""


class Awaited:
    async def __call__(self, event):
        """Nobody would await it."""


class Unbound:
    """As a `werkzeug.local.LocalProxy` outside of its context."""

    def __getattr__(self, name):
        raise RuntimeError

    def __call__(self, event):
        """Take it."""


class TestWhatIsNoHook:
    @pytest.mark.parametrize(
        ("hooks", "message"),
        [
            (None, "{} takes an iterable of hooks, and got a NoneType"),
            (5, "{} takes an iterable of hooks, and got a int"),
            (print, "{} takes an iterable of hooks, and got a builtin_function_or_method: put it into a list"),
            (partial(print), "{} takes an iterable of hooks, and got a partial: put it into a list"),
            (Equal, "{} takes an iterable of hooks, and got a type: put it into a list"),
            ([Equal], "{} got the class Equal: give an instance, Equal(...)"),
            ([print, Equal], "{} got the class Equal: give an instance, Equal(...)"),
            ([print, None], "{} takes functions of one event, and got a NoneType"),
            ("print", "{} takes functions of one event, and got a str"),
            ([[print]], "{} takes functions of one event, and got a list"),
            ({"waiting": print}, "{} takes functions of one event, and got a str"),
            ([awaited], "{} takes functions of one event, and got a coroutine function"),
            ([partial(awaited)], "{} takes functions of one event, and got a coroutine function"),
            ([Awaited()], "{} takes functions of one event, and got a coroutine function"),
        ],
    )
    def test_is_refused_at_once_with_advice(self, hooks, message):
        for call in (
            lambda: check_hooks(hooks, "GuardAdapter(hooks=...)"),
            lambda: GuardAdapter(hooks=hooks),
            lambda: GuardAdapter(GuardSettings(), hooks=hooks),
        ):
            with pytest.raises(TypeError) as caught:
                call()
            assert str(caught.value) == message.format("GuardAdapter(hooks=...)")

    def test_is_refused_where_a_guard_is_mounted(self):
        with requests.Session() as session:
            before = dict(session.adapters)
            with pytest.raises(TypeError, match="takes an iterable of hooks"):
                mount_guard(session, ORIGIN, hooks=print)
            assert dict(session.adapters) == before

    def test_is_named_after_whoever_takes_it(self):
        with pytest.raises(TypeError, match=r"^instrument\(\.\.\.\) takes an iterable of hooks, and got a int$"):
            check_hooks(1, "instrument(...)")


class TestAnyIterableOfHooks:
    @pytest.mark.parametrize(
        "kind", [list, tuple, set, frozenset, iter, dict.fromkeys, lambda hooks: (h for h in hooks)]
    )
    def test_will_do_and_is_read_once(self, kind):
        adapter = GuardAdapter(hooks=kind([print]))
        assert adapter.hooks == (print,)
        assert adapter.hooks is adapter.hooks

    def test_is_copied_so_that_later_changes_do_not_count(self):
        hooks = [print]
        adapter = GuardAdapter(hooks=hooks)
        hooks.append(None)
        assert adapter.hooks == (print,)

    @pytest.mark.parametrize(
        "hook", [print, partial(print, end=""), Mock(), Equal(), [].append, lambda event: event]
    )
    def test_may_hold_whatever_can_be_called(self, hook):
        (found,) = check_hooks([hook], "GuardAdapter(hooks=...)")
        assert found is hook

    def test_may_hold_a_proxy_without_anything_behind_it(self):
        hook = Unbound()
        (found,) = check_hooks([hook], "GuardAdapter(hooks=...)")
        assert found is hook

    def test_is_none_by_default(self):
        assert GuardAdapter().hooks == ()

    def test_that_fails_itself_fails_as_it_is(self):
        def hooks():
            yield print
            raise LookupError

        with pytest.raises(LookupError):
            GuardAdapter(hooks=hooks())


def test_a_guard_that_several_threads_use_calls_each_hook_in_the_thread_of_the_call(canned, shared, together):
    seen, own = [], []
    shared(lambda _: seen.append(threading.get_ident()))
    hooks = [lambda _: own.append(threading.get_ident())]

    def write():
        with pytest.raises(RecordLockedError):
            canned(LOCKED, hooks=hooks, attempts=2, share_locks=False).put(URL, json={})
        return threading.get_ident()

    threads = together([write] * 4)
    assert set(seen) == set(own) == set(threads)
    assert len(seen) == len(own) == 4 * 5
