"""The lock registry is asked and told as by single calls: what one learns of a lock, the other need not ask."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

import crm_guard
from crm_guard import GuardSettings
from crm_guard.locks import MemoryLockRegistry, Unshared
from crm_guard.simulator import Simulator
from tests.bulk.world import add, check, rows_of, session_for, take, until
from tests.locks.conftest import redis_server

PATIENT = GuardSettings(wait_initial=30.0, wait_max=30.0, wait_jitter=0.0, timeout=100.0)
EAGER = GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=8.0)


def put(session, leads, record_id):
    return session.put(f"{leads}/{record_id}", json={"data": [{"Company": "9"}]}, timeout=20)


def in_thread(action):
    """Run an action in a thread; return what waits for its result."""
    found = []

    def run():
        try:
            found.append(action())
        except Exception as exc:  # noqa: BLE001 (the test looks at it)
            found.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(15)
        assert not thread.is_alive(), "it still waits"
        return found[0]

    return result


def test_a_single_call_is_released_when_a_row_gets_through(crm, leads):
    registry = MemoryLockRegistry()
    (locked,) = add(crm, 1, refusals=4)
    with (
        session_for(crm, PATIENT, lock_registry=registry) as single,
        session_for(crm, EAGER, lock_registry=registry) as many,
    ):
        waiting = in_thread(lambda: put(single, leads, locked))
        until(lambda: crm.refusals(locked) >= 1)
        results, _ = take(crm_guard.write_records(many, "PUT", leads, rows_of([locked])))
        assert waiting().ok, "it waited for itself, which takes half a minute"
    assert results[0].succeeded
    assert crm.writes(locked) == 2
    assert not registry


def test_a_row_is_released_when_a_single_call_gets_through(crm, leads):
    registry = MemoryLockRegistry()
    (locked,) = add(crm, 1, refusals=4)
    with (
        session_for(crm, EAGER, lock_registry=registry) as single,
        session_for(crm, PATIENT, lock_registry=registry) as many,
    ):
        writing = in_thread(lambda: take(crm_guard.write_records(many, "PUT", leads, rows_of([locked]))))
        until(lambda: crm.refusals(locked) >= 1)
        assert put(single, leads, locked).ok
        results, error = writing()
    assert error is None
    assert results[0].succeeded
    assert crm.writes(locked) == 2
    assert not registry


def test_a_row_that_others_know_to_be_locked_is_not_sent_before(crm, leads):
    registry = MemoryLockRegistry()
    locked, free = *add(crm, 1, locked_for=60), *add(crm, 1)
    with (
        session_for(crm, PATIENT, lock_registry=registry) as single,
        session_for(crm, PATIENT, lock_registry=registry) as many,
    ):
        waiting = in_thread(lambda: put(single, leads, locked))
        until(lambda: bool(registry))
        rows = rows_of([locked, free])
        with crm_guard.write_records(many, "PUT", leads, rows, batch_size=1) as writer:
            results = [next(writer)]
        assert results[0].index == 1
        check(crm, rows, results, writer)
        assert [row.state.value for row in writer.unfinished()] == ["never_sent"]
        single.get_adapter(leads).stop_waiting()
        assert isinstance(waiting(), crm_guard.RecordLockedError)
    assert crm.refusals(locked) == 1
    assert not registry


@pytest.mark.parametrize("shared", [True, False])
def test_writers_on_the_same_records_all_get_through(crm, leads, shared):
    policy = GuardSettings(wait_initial=0.02, wait_max=0.02, timeout=8.0, share_locks=shared)
    ids = add(crm, 20, locked_for=0.3)
    with session_for(crm, policy) as session:
        registry = session.get_adapter(leads).locks
        assert isinstance(registry, Unshared) is not shared

        def write():
            return take(crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=20, workers=1))

        writing = [in_thread(write) for _ in range(3)]
        assert [len(result()[0]) for result in writing] == [20] * 3
        assert not registry
    assert set(crm.write_counts.values()) == {3}


@pytest.mark.parametrize("end", ["close", "stop", "401"])
def test_a_writer_that_ends_leaves_nothing_in_the_registry(crm, leads, end):
    registry = MemoryLockRegistry()
    ids = add(crm, 5, locked_for=60) + add(crm, 5)
    with session_for(crm, EAGER, lock_registry=registry) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=2)
        next(writer)
        until(lambda: bool(registry))
        if end == "401":
            crm.expire_token("other")
        elif end == "stop":
            crm_guard.stop_waiting()
        else:
            writer.close()
        take(writer)
    assert not registry
    assert not registry.table.turns.limiters


class Lacking(MemoryLockRegistry):
    """Its waiters know how to block, and no more."""

    def waiter(self, context):
        full = super().waiter(context)

        class Plain:
            wait, verdict, leave = full.wait, full.verdict, full.leave

        return Plain()


class Failing:
    """Raises whatever it is asked."""

    def __init__(self, *names):
        self.names, self.seen = names, Counter()

    def __bool__(self):
        return True

    def knows(self, keys):
        return self._do("knows") or False

    def waiter(self, context):
        self._do("waiter")
        return self

    def begin(self, keys, delay):
        self._do("begin")
        return 0.0

    def may_ask(self):
        return self._do("may_ask") or True

    def look(self):
        self._do("look")
        return frozenset({"all"}), 0.0

    def wait(self, keys, delay, deadline):
        return frozenset(keys)

    def verdict(self, **about):
        self._do("verdict")

    def leave(self):
        self._do("leave")

    def close(self):
        pass

    def _do(self, name):
        self.seen[name] += 1
        if name in self.names:
            raise LookupError(name)


@pytest.mark.parametrize(
    "registry",
    [Lacking(), *(Failing(name) for name in ("knows", "waiter", "begin", "look", "verdict", "leave"))],
    ids=lambda registry: "_".join(getattr(registry, "names", ["lacking"])),
)
def test_a_registry_of_the_users_own_that_fails_costs_no_result(crm, leads, registry, caplog):
    rows = rows_of(add(crm, 3) + add(crm, 3, refusals=2))
    with session_for(crm, EAGER, lock_registry=registry) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows)
        results, error = take(writer)
    assert error is None
    assert [result.succeeded for result in results] == [True] * 6
    check(crm, rows, results, writer)
    if isinstance(registry, Failing):
        assert registry.seen[registry.names[0]]
        assert "the lock registry failed: LookupError" in caplog.text


def test_writers_of_two_processes_share_through_redis(tmp_path, crm, leads):
    from crm_guard.locks.redis import RedisLockRegistry

    with redis_server(tmp_path) as server:
        registries = [RedisLockRegistry(server.url, lease=0.5, poll=0.05) for _ in range(2)]
        (locked,) = add(crm, 1, refusals=3)
        with (
            session_for(crm, PATIENT, lock_registry=registries[0]) as first,
            session_for(crm, EAGER, lock_registry=registries[1]) as second,
        ):
            waiting = in_thread(lambda: take(crm_guard.write_records(first, "PUT", leads, rows_of([locked]))))
            until(lambda: crm.refusals(locked) >= 1)
            results, _ = take(crm_guard.write_records(second, "PUT", leads, rows_of([locked])))
            others, error = waiting()
        assert error is None
        assert [results[0].succeeded, others[0].succeeded] == [True, True]
        assert crm.writes(locked) == 2
        for registry in registries:
            until(lambda registry=registry: not registry)
            registry.close()


def refusals_of_three_writers(registry):
    """Return how often CRM refused the same locked rows to three writers that begin at once."""
    policy = GuardSettings(wait_initial=0.02, wait_max=0.02, timeout=8.0)
    with Simulator() as crm, session_for(crm, policy, lock_registry=registry) as session:
        ids = add(crm, 20, locked_for=0.4)
        url = f"{crm.url}/crm/v8/Leads"
        waiting = [
            in_thread(lambda: take(crm_guard.write_records(session, "PUT", url, rows_of(ids), workers=1)))
            for _ in range(3)
        ]
        for result in waiting:
            results, error = result()
            assert error is None
            assert [found.succeeded for found in results] == [True] * 20
        return sum(crm.refusals(record_id) for record_id in ids)


def test_three_writers_of_the_same_locked_rows_ask_less_than_each_for_itself():
    """On a machine that is busy for a while, each has time for few questions: then once more."""
    pairs = (
        (refusals_of_three_writers(registry) for registry in (MemoryLockRegistry(), Unshared())) for _ in range(5)
    )
    assert any(shared < 0.7 * unshared for shared, unshared in pairs)
