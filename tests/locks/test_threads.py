"""Many threads on the registry in memory. Invariants only; each fails without the mutex or without a wake-up."""

import copy
import os
import pickle
import select
import sys
import threading

import pytest

from crm_guard.clock import SystemClock
from crm_guard.locks import MemoryLockRegistry, Unshared
from crm_guard.locks.table import Locks

KEY = "o|1"


class Yielding(Locks):
    """A dictionary that lets the other threads run whenever it was asked."""

    def get(self, key, default=None):
        value = super().get(key, default)
        select.select([], [], [], 0)
        return value


class Sleepless(SystemClock):
    """The real clock, for a wait that is over already."""

    def wait(self, event, timeout):
        assert event.is_set(), "a wake-up was lost"
        return True


@pytest.fixture
def registry():
    return MemoryLockRegistry()


@pytest.fixture
def busy_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("busy_switching")
def test_no_record_has_two_leaders_and_no_call_is_lost(registry, crm, call, together):
    """While it is locked, one call at a time asks for a record; in the end each wrote each record once."""
    registry.table.locks = Yielding(max_records=100)
    keys = [f"o|{number}" for number in range(4)]
    crm.lock(*keys)
    mutex, asking, twice, first = threading.Lock(), set(), [], set()
    everybody = threading.Barrier(24)

    def send(name, going):
        if name not in first:
            first.add(name)
            locked = crm.send(name, going)
            everybody.wait(10)
            return locked
        with mutex:
            locked = [key for key in going if crm.unlocks[key] == float("inf")]
            twice.extend(asking.intersection(locked))
            asking.update(locked)
        answer = crm.send(name, going)
        with mutex:
            asking.difference_update(locked)
            probes.append(name)
            if len(probes) == 12:
                crm.unlock(*keys)
        return answer

    probes = []
    jobs = [[keys[number % 4], keys[(number + 1) % 4]] for number in range(24)]
    left = together(*(lambda n=n, ks=ks: call(registry, crm, n, ks, send=send) for n, ks in enumerate(jobs)))
    assert left == [set()] * 24
    assert not twice, "two calls probed one record"
    assert sorted(crm.writes) == sorted((n, key) for n, ks in enumerate(jobs) for key in ks)
    assert not registry
    assert not registry.table.turns.limiters


def test_two_hundred_followers_go_in_the_order_of_their_coming(waiter_of, together, soon):
    registry = MemoryLockRegistry(wake_at_once=1)
    waiters = [waiter_of(registry) for _ in range(200)]
    order = []
    for waiter in waiters:
        waiter.verdict(locked=[KEY], free=[])

    def enrolled():
        return sum(one.waiting for one in registry.table.locks[KEY].queue)

    def run(waiter):
        assert waiter.wait([KEY], 100.0, soon) == {KEY}
        order.append(waiters.index(waiter))
        waiter.verdict(locked=[], free=[KEY])
        waiter.leave()

    def unlock():
        while enrolled() < 200:
            select.select([], [], [], 0.001)
        finder = waiter_of(registry)
        finder.verdict(locked=[], free=[KEY])
        finder.leave()

    together(unlock, *(lambda one=one: run(one) for one in waiters))
    assert order == list(range(200))
    assert not registry


def test_a_sleeping_leader_hears_of_an_unlock_and_of_a_shorter_delay(registry, waiter_of, together, soon):
    leader, follower = waiter_of(registry), waiter_of(registry)
    leader.verdict(locked=[KEY], free=[])

    def latecomer():
        leader.asleep()
        follower.verdict(locked=[KEY], free=[])
        got = follower.wait([KEY], 0.02, soon)
        follower.verdict(locked=[], free=[KEY])
        follower.leave()
        return got

    def probe():
        got = leader.wait([KEY], 100.0, soon)
        leader.verdict(locked=[], free=[KEY])
        leader.leave()
        return got

    assert together(probe, latecomer) == [{KEY}, {KEY}]


def test_the_mutex_is_free_while_calls_wait(registry, waiter_of):
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    waiting = threading.Thread(target=waiter.wait, args=([KEY], 15.0, SystemClock().now() + 15))
    waiting.start()
    waiter.asleep()
    assert registry.mutex.acquire(timeout=5)
    registry.mutex.release()
    waiter.interrupt()
    waiting.join()
    waiter.leave()


def test_a_wake_up_between_looking_and_sleeping_is_not_lost(registry, waiter_of, soon):
    waiter, other = waiter_of(registry), waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    look = waiter.look

    def look_then_unlock():
        result = look()
        other.verdict(locked=[], free=[KEY])
        return result

    waiter.look = look_then_unlock
    waiter._clock = Sleepless()
    assert waiter.wait([KEY], 100.0, soon) == {KEY}
    waiter.leave()


def test_an_interrupt_that_came_before_the_wait_ends_it(registry, waiter_of, soon):
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    waiter.interrupt()
    assert waiter.wait([KEY], 0.0, soon) == frozenset()
    waiter.leave()


def pickled(one):
    return pickle.loads(pickle.dumps(one))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, pickled])
def test_a_copy_is_fresh_and_has_the_same_limits(waiter_of, copied):
    registry = MemoryLockRegistry(wake_at_once=3, max_records=7)
    waiter_of(registry).verdict(locked=[KEY], free=[])
    other = copied(registry)
    assert registry
    assert not other
    assert other.mutex is not registry.mutex
    assert other._options == registry._options


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks only where there is a fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_starts_with_an_empty_registry(registry, waiter_of):
    """The mutex may be held, and the calls it knows are not in the child."""
    waiter_of(registry).verdict(locked=[KEY], free=[])
    with registry.mutex:
        child = os.fork()
        if not child:
            os._exit(bool(registry) or not registry.mutex.acquire(timeout=1))
    assert os.waitpid(child, 0)[1] == 0


def test_at_least_one_call_must_be_woken():
    with pytest.raises(ValueError, match="wake_at_once=0"):
        MemoryLockRegistry(wake_at_once=0)


class TestUnshared:
    def test_it_waits_the_delay_and_sends_everything(self, waiter_of, soon):
        registry, clock = Unshared(), SystemClock()
        waiter, before = waiter_of(registry), clock.now()
        waiter.verdict(locked=[KEY], free=[])
        assert not registry
        assert not registry.knows([KEY])
        assert waiter.wait([KEY, "o|2"], 0.03, soon) == {KEY, "o|2"}
        assert clock.now() - before >= 0.03
        waiter.leave()
        registry.close()

    def test_a_wake_up_that_interrupts_nothing_does_not_shorten_the_wait(self, waiter_of, soon):
        waiter, clock = waiter_of(Unshared()), SystemClock()
        before = clock.now()
        waiter.wake.set()
        assert waiter.wait([KEY], 0.03, soon) == {KEY}
        assert clock.now() - before >= 0.03

    def test_it_ends_at_once_when_interrupted_or_out_of_time(self, waiter_of, soon):
        waiter = waiter_of(Unshared())
        assert waiter.wait([KEY], 15.0, SystemClock().now()) == frozenset()
        waiter.interrupt()
        assert waiter.wait([KEY], 100.0, soon) == frozenset()
