"""What every registry promises, the one in memory and the one in Redis."""

import threading

import pytest

from crm_guard.clock import SystemClock

KEY = "https://crm|1"
KEYS = [f"https://crm|{number}" for number in range(10)]


@pytest.fixture
def registry(make_registry):
    return make_registry()


def test_an_empty_registry_is_false_and_knows_nothing(registry):
    assert not registry
    assert not registry.knows([KEY])
    assert not registry.knows([])


def test_a_refused_record_is_known_until_its_last_call_leaves(registry, waiter_of):
    first, second = waiter_of(registry), waiter_of(registry)
    first.verdict(locked=[KEY], free=[])
    second.verdict(locked=[KEY], free=[])
    assert registry
    assert registry.knows([KEY])
    assert not registry.knows([KEY, KEYS[2]])
    assert not registry.knows([])
    first.leave()
    assert registry.knows([KEY])
    second.leave()
    second.leave()
    assert not registry


def test_the_first_call_probes_after_its_own_delay(registry, waiter_of, soon):
    waiter, clock = waiter_of(registry), SystemClock()
    waiter.verdict(locked=[KEY], free=[])
    before = clock.now()
    assert waiter.wait([KEY], 0.05, soon) == {KEY}
    assert clock.now() - before >= 0.05
    waiter.leave()


def test_waiting_for_nothing_returns_nothing(registry, waiter_of, soon):
    assert waiter_of(registry).wait([], 9.0, soon) == frozenset()


def test_a_record_without_a_lock_goes_at_once(registry, waiter_of, soon):
    """The lock that a latecomer knew of may be gone when it comes to wait."""
    waiter = waiter_of(registry)
    assert waiter.wait([KEY], 100.0, soon) == {KEY}
    waiter.leave()


def test_a_follower_is_woken_by_the_leaders_success(registry, waiter_of, together, soon):
    leader, follower = waiter_of(registry), waiter_of(registry)
    leader.verdict(locked=[KEY], free=[])
    follower.verdict(locked=[KEY], free=[])
    order = []

    def probe():
        order.append(("probe", *leader.wait([KEY], 0.05, soon)))
        leader.verdict(locked=[], free=[KEY])
        leader.leave()

    def follow():
        leader.asleep()
        order.append(("follow", *follower.wait([KEY], 100.0, soon)))
        follower.leave()

    together(probe, follow)
    assert order == [("probe", KEY), ("follow", KEY)]
    assert not registry


@pytest.mark.parametrize("how", ["leaves", "is interrupted", "runs out of time"])
def test_a_leader_that_stops_hands_the_probe_on(registry, waiter_of, together, soon, how):
    leader, follower = waiter_of(registry), waiter_of(registry)
    leader.verdict(locked=[KEY], free=[])
    follower.verdict(locked=[KEY], free=[])

    def probe():
        if how == "leaves":
            leader.wait([KEY], 0.05, soon)
        else:
            assert not leader.wait([KEY], 5.0, SystemClock().now() + (0.1 if "time" in how else 15))
        leader.leave()

    def interrupt():
        if "interrupted" in how:
            leader.asleep()
            follower.asleep()  # it has asked for an earlier probe by now
            leader.interrupt()

    def follow():
        leader.asleep()
        # Due after the leader stops: before that, the question would be the leader's to ask.
        got = follower.wait([KEY], 0.1 if how == "leaves" else 0.3, soon)
        follower.leave()
        return got

    assert together(probe, follow, interrupt)[1] == {KEY}
    assert not registry


def test_a_follower_keeps_its_own_deadline(registry, waiter_of):
    leader, follower = waiter_of(registry), waiter_of(registry)
    leader.verdict(locked=[KEY], free=[])
    follower.verdict(locked=[KEY], free=[])
    running = threading.Thread(target=leader.wait, args=([KEY], 15.0, SystemClock().now() + 15))
    running.start()
    leader.asleep()
    assert follower.wait([KEY], 15.0, SystemClock().now() + 0.05) == frozenset()
    follower.leave()
    leader.interrupt()
    running.join()
    leader.leave()


def test_an_interrupted_follower_returns_nothing(registry, waiter_of, together, soon, eventually):
    leader, follower = waiter_of(registry), waiter_of(registry)
    leader.verdict(locked=[KEY], free=[])

    def interrupt():
        eventually(lambda: len(registry.table.locks[KEY].queue) == 2)
        follower.interrupt()
        leader.interrupt()

    waits = [lambda one=one: one.wait([KEY], 100.0, soon) for one in (leader, follower)]
    assert together(*waits, interrupt)[:2] == [frozenset(), frozenset()]
    leader.leave()
    follower.leave()
    assert not registry


def test_a_batch_sends_what_is_free_at_its_tick(registry, waiter_of, soon):
    """A lock does not delay another record."""
    other, batch = waiter_of(registry), waiter_of(registry)
    other.verdict(locked=[KEY], free=[])
    assert other.wait([KEY], 0.01, soon) == {KEY}, "and has no answer for a while"
    assert batch.wait([KEY, *KEYS[2:]], 0.05, soon) == set(KEYS[2:])
    batch.leave()
    other.leave()


def test_fifty_calls_cost_little_more_than_fifty(registry, crm, call, together, eventually):
    """Fifty writes, the first refusal and some probes: not fifty times the probes."""
    crm.lock(KEY, seconds=0.4)

    def late(number):
        eventually(lambda: registry.knows([KEY]))
        return call(registry, crm, number, [KEY], delay=0.1)

    together(lambda: call(registry, crm, 0, [KEY], delay=0.1), *(lambda n=n: late(n) for n in range(1, 50)))
    assert sorted(crm.writes) == [(n, KEY) for n in range(50)]
    assert crm.calls <= 58
    assert not registry


def test_batches_write_every_record_once(registry, crm, call, together):
    crm.lock(*KEYS[:5], seconds=0.1)
    crm.lock(*KEYS[5:8], seconds=0.2)
    batches = [KEYS[number % 5 : number % 5 + 5] for number in range(12)]
    left = together(*(lambda n=n, keys=keys: call(registry, crm, n, keys) for n, keys in enumerate(batches)))
    assert left == [set()] * 12
    assert sorted(crm.writes) == sorted((n, key) for n, keys in enumerate(batches) for key in keys)
    assert not registry


def test_an_unlock_wakes_no_more_than_wake_at_once(make_registry, crm, call, together):
    registry = make_registry(wake_at_once=3)
    crm.lock(KEY)
    mutex, flying, most = threading.Lock(), set(), []
    everybody = threading.Barrier(20)

    def send(name, keys):
        if name not in seen:
            seen.add(name)
            locked = crm.send(name, keys)
            everybody.wait(10)
            crm.unlock(KEY)
            return locked
        with mutex:
            flying.add(name)
            most.append(len(flying))
        clock.wait(threading.Event(), 0.005)
        with mutex:
            flying.discard(name)
        return crm.send(name, keys)

    seen, clock = set(), SystemClock()
    together(*(lambda n=n: call(registry, crm, n, [KEY], send=send) for n in range(20)))
    assert len(crm.writes) == 20
    assert 1 < max(most) <= 3


def test_a_woken_call_that_is_refused_probes_and_the_rest_wait(
    make_registry, waiter_of, together, soon, eventually
):
    registry = make_registry(wake_at_once=1)
    waiters = [waiter_of(registry) for _ in range(4)]
    for waiter in waiters:
        waiter.verdict(locked=[KEY], free=[])
    sends = []
    refusals = iter([True, False])

    def run(waiter):
        assert waiter.wait([KEY], 0.05, soon) == {KEY}
        while True:
            sends.append(waiter)
            if len(sends) == 2 and next(refusals):
                waiter.verdict(locked=[KEY], free=[])
                assert registry.knows([KEY])
                assert waiter.wait([KEY], 0.05, soon) == {KEY}
                continue
            waiter.verdict(locked=[], free=[KEY])
            waiter.leave()
            return

    together(*(lambda one=one: run(one) for one in waiters))
    assert len(sends) == 5
    assert sends[1] is not sends[2], "the next question is another's"
