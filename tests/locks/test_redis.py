"""What only the registry in Redis does: real processes, a real server, and a server that fails."""

import copy
import gc
import logging
import pickle
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Listener
from pathlib import Path

import pytest
import redis
import requests

from crm_guard import GuardAdapter, GuardSettings
from crm_guard.clock import SystemClock
from crm_guard.locks.redis import RedisLockRegistry

KEY = "o|1"
QUICK = {"lease": 0.3, "poll": 0.1, "retry_after": 0.1}


@pytest.fixture
def crm_port(crm):
    """The CRM, behind a socket that other processes reach."""
    with Listener(("127.0.0.1", 0), authkey=b"test", backlog=64) as listener:
        threading.Thread(target=serve, args=(listener, crm), daemon=True).start()
        yield listener.address[1]


def serve(listener, crm):
    while True:
        try:
            connection = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection, crm), daemon=True).start()


def answer(connection, crm):
    with connection:
        try:
            while True:
                connection.send(crm.send(*connection.recv()))
        except (EOFError, OSError):
            return


@pytest.fixture
def start_worker(server, crm_port, request):
    """A function that starts a process with some threads, each with one write; it waits for `go`."""
    workers = []

    def start(name, threads):
        script = str(Path(__file__).with_name("worker.py"))
        arguments = [server.url, f"test:{request.node.name}:", str(crm_port), name, str(threads)]
        worker = subprocess.Popen(
            [sys.executable, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.communicate()


def go(*workers):
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()


def warnings(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_four_processes_of_ten_threads_share_one_lock(start_worker, crm):
    """Forty writes, each once; probes are shared, so calls stay far below forty times the probes."""
    crm.lock(KEY)
    workers = [start_worker(str(number), 10) for number in range(4)]
    go(*workers)
    clock, nothing = SystemClock(), threading.Event()
    while crm.calls < 40:
        clock.wait(nothing, 0.001)
    crm.lock(KEY, seconds=0.6)
    for worker in workers:
        assert worker.wait(15) == 0
    assert sorted(name for name, _ in crm.writes) == sorted(f"{p}.{t}" for p in range(4) for t in range(10))
    assert crm.calls <= 40 + 40 + 20, "first refusals, writes, and the probes of one"


def test_kill_9_of_a_process_that_needs_a_record_leaves_the_others_their_own_schedule(
    start_worker, redis_registry, crm, waiter_of, eventually
):
    crm.lock(KEY)
    victim = start_worker("victim", 1)
    registry = redis_registry()
    go(victim)
    eventually(lambda: registry.knows([KEY]))
    victim.kill()
    victim.wait()
    waiter = waiter_of(registry)
    assert waiter.wait([KEY], 0.3, SystemClock().now() + 15) == {KEY}
    waiter.leave()


def test_kill_9_of_the_one_that_asks_frees_the_question(redis_registry, waiter_of, soon):
    """A process that dies takes nothing back: here, one that sends no heartbeats."""
    dead, alive = redis_registry(), redis_registry()
    first, second = waiter_of(dead), waiter_of(alive)
    first.verdict(locked=[KEY], free=[])
    assert first.wait([KEY], 0.01, soon) == {KEY}
    dead.close()
    second.verdict(locked=[KEY], free=[])
    assert second.wait([KEY], 0.01, soon) == {KEY}
    second.leave()


def test_kill_9_of_woken_calls_frees_their_slots(redis_registry, waiter_of, soon):
    """A process that dies gives nothing back: here, one that sends no heartbeats."""
    dead, alive = redis_registry(wake_at_once=2), redis_registry(wake_at_once=2)
    for waiter in (waiter_of(dead), waiter_of(alive)):
        assert waiter.wait([KEY], 1.0, soon) == {KEY}
    dead.close()
    waiter = waiter_of(alive)
    assert waiter.wait([KEY], 1.0, soon) == {KEY}
    waiter.leave()


def test_kill_9_of_a_process_whose_calls_stand_in_line_stops_no_other(redis_registry, waiter_of, together, soon):
    """It is no longer given slots, or nobody would be left to give them on."""
    dead, alive = redis_registry(wake_at_once=2), redis_registry(wake_at_once=2)
    dead.link.take_slots("o", [f"{dead.link.process}:{number}" for number in range(40)], 2)
    dead.close()

    def go(waiter):
        got = waiter.wait([KEY], 1.0, soon)
        waiter.verdict(locked=[], free=[KEY])
        waiter.leave()
        return got

    began = SystemClock().now()
    waiters = [waiter_of(alive) for _ in range(6)]
    assert together(*(lambda one=one: go(one) for one in waiters)) == [{KEY}] * 6
    assert SystemClock().now() - began < 4 * 0.3, "about a lease, not one for each that is dead"


def test_a_call_that_leaves_during_a_heartbeat_gets_no_slot_back(
    redis_registry, waiter_of, server, soon, eventually
):
    registry = redis_registry(lease=9.0)
    waiter = waiter_of(registry)
    assert waiter.wait([KEY], 1.0, soon) == {KEY}
    take = registry.link.take_slots

    def leave_then_take(*args):
        waiter.leave()
        return take(*args)

    registry.link.take_slots = leave_then_take
    registry.heartbeat()
    with redis.Redis.from_url(server.url) as client:
        places = [f"{registry._prefix}{kind}:o" for kind in ("pace", "line")]
        eventually(lambda: not client.exists(*places))  # the listener has a heartbeat of its own


def test_a_refusal_to_a_newcomer_leaves_the_claim_of_another_call(redis_registry, waiter_of, server, soon):
    registry = redis_registry()
    leader, newcomer = waiter_of(registry), waiter_of(registry)
    leader.verdict(locked=[KEY], free=[])
    assert leader.wait([KEY], 0.01, soon) == {KEY}
    newcomer.verdict(locked=[KEY], free=[])
    with redis.Redis.from_url(server.url) as client:
        assert client.exists(f"{registry._prefix}lock:{KEY}")
    newcomer.leave()
    leader.verdict(locked=[KEY], free=[])
    with redis.Redis.from_url(server.url) as client:
        assert not client.exists(f"{registry._prefix}lock:{KEY}")
    leader.leave()


def test_a_call_whose_record_is_locked_again_gives_its_slot_to_others(
    redis_registry, waiter_of, together, soon, eventually
):
    """It would keep it, renewed by each heartbeat, for as long as the lock lasts."""
    here, there, elsewhere = (redis_registry(wake_at_once=1) for _ in range(3))
    first, second, other = waiter_of(here), waiter_of(there), waiter_of(elsewhere)
    assert first.wait([KEY], 1.0, soon) == {KEY}, "it has the slot"

    def stand_in_line():
        return second.wait([KEY], 30.0, SystemClock().now() + 0.6)

    def lock_again():
        eventually(lambda: there.awaiting_slot)
        first.verdict(locked=[KEY], free=[])
        got = other.wait(["o|2"], 1.0, SystemClock().now() + 0.5)
        other.leave()
        first.leave()
        return got

    assert together(stand_in_line, lock_again) == [frozenset(), {"o|2"}]
    second.leave()


def test_a_slot_that_another_call_of_the_process_got_is_not_taken_for_ones_own(redis_registry, waiter_of, soon):
    registry = redis_registry(wake_at_once=1)
    waiter = waiter_of(registry)
    replies = iter([{"a call"}, {"a call", waiter._name}])
    registry.link.take_slots = lambda *_: next(replies, {waiter._name})
    threading.Timer(0.05, waiter.wake.set).start()
    assert waiter.wait([KEY], 1.0, soon) == {KEY}
    assert waiter._name not in next(replies, set()), "the first reply was not for it"
    waiter.leave()


def test_news_that_are_older_than_our_own_question_do_not_end_it(redis_registry, waiter_of, soon):
    registry = redis_registry()
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    assert waiter.wait([KEY], 0.01, soon) == {KEY}
    asker = registry.table.locks[KEY].asker
    registry.on_message(b'{"by": "x", "kind": "asked", "keys": ["o|1"]}')
    registry.on_message(b'{"by": "x", "kind": "locked", "keys": ["o|1"]}')
    assert registry.table.locks[KEY].asker is asker
    waiter.leave()


def test_a_need_that_crosses_an_unlock_makes_no_lock(redis_registry):
    registry = redis_registry()
    registry.on_message(b'{"by": "x", "kind": "need", "keys": ["o|1"], "calls": [1]}')
    assert not registry


def test_calls_of_a_process_that_says_nothing_any_more_do_not_count(redis_registry, waiter_of, eventually):
    registry = redis_registry(lease=0.1)
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    registry.on_message(b'{"by": "x", "kind": "need", "keys": ["o|1"], "calls": [64]}')
    registry.on_message(b'{"by": "y", "kind": "need", "keys": ["o|1"], "calls": [2]}')
    assert registry.table.locks[KEY].elsewhere == 66
    registry.on_message(b'{"by": "y", "kind": "need", "keys": ["o|1"], "calls": [1]}')
    assert registry.table.locks[KEY].elsewhere == 65
    eventually(lambda: registry.table.locks[KEY].elsewhere == 0)
    waiter.leave()


def test_a_process_that_starts_later_hears_how_many_calls_need_a_record(redis_registry, waiter_of, eventually):
    early = redis_registry()
    waiters = [waiter_of(early) for _ in range(3)]
    for waiter in waiters:
        waiter.verdict(locked=[KEY], free=[])
    late = redis_registry()
    waiter = waiter_of(late)
    waiter.verdict(locked=[KEY], free=[])
    eventually(lambda: late.table.locks[KEY].elsewhere == 3)
    for one in (*waiters, waiter):
        one.leave()


def test_other_processes_hear_for_how_long_crm_asks_not_to_ask_again(redis_registry, waiter_of, eventually, soon):
    """Of each refusal, also of a record that they know to be locked."""
    here, there = redis_registry(poll=9.0), redis_registry(poll=9.0)
    waiter = waiter_of(here)
    waiter.verdict(locked=[KEY], free=[])
    eventually(lambda: there.knows([KEY]))
    assert waiter.wait([KEY], 0.01, soon) == {KEY}
    asked_at = SystemClock().now()
    waiter.verdict(locked=[KEY], free=[], retry_after=4.0)
    eventually(lambda: there.table.locks[KEY].not_before > asked_at)
    assert there.table.locks[KEY].not_before >= asked_at + 4.0
    waiter.leave()


def test_other_processes_hear_of_a_record_that_is_locked_again_while_calls_wait(
    redis_registry, waiter_of, eventually
):
    here, there = redis_registry(), redis_registry()
    waiters = [waiter_of(here) for _ in range(2)]
    for waiter in waiters:
        waiter.verdict(locked=[KEY], free=[])
    eventually(lambda: there.knows([KEY]))
    waiters[0].verdict(locked=[], free=[KEY])
    eventually(lambda: not there.knows([KEY]))
    waiters[1].verdict(locked=[KEY], free=[])
    eventually(lambda: there.knows([KEY]))
    for waiter in waiters:
        waiter.leave()


def test_a_record_that_is_freed_while_it_is_claimed_leaves_no_claim(redis_registry, waiter_of, server, soon):
    registry = redis_registry(lease=9.0)
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    claim = registry.link.claim

    def claim_then_hear(keys):
        held = claim(keys)
        registry.on_message(b'{"by": "x", "kind": "free", "keys": ["o|1"]}')
        return held

    registry.link.claim = claim_then_hear
    assert waiter.wait([KEY], 0.01, soon) == {KEY}
    with redis.Redis.from_url(server.url) as client:
        assert not client.exists(f"{registry._prefix}lock:{KEY}")
    waiter.leave()


def test_a_record_id_that_is_no_proper_text_does_no_harm(redis_registry, waiter_of, soon):
    registry, odd = redis_registry(), "o|\ud800"
    waiter = waiter_of(registry)
    waiter.verdict(locked=[odd], free=[])
    assert waiter.wait([odd], 0.01, soon) == {odd}
    waiter.verdict(locked=[], free=[odd])
    waiter.leave()
    assert registry.link.up


def test_an_unlock_is_told_once_however_many_calls_profit(redis_registry, waiter_of, soon):
    registry = redis_registry()
    waiters = [waiter_of(registry) for _ in range(5)]
    told, drop = [], registry.link.drop
    registry.link.drop = lambda kind, keys, *rest: (told.append(kind) if keys else None, drop(kind, keys, *rest))
    for waiter in waiters:
        waiter.verdict(locked=[KEY], free=[])
    for waiter in waiters:
        waiter.verdict(locked=[], free=[KEY])
    assert told == ["locked", "free"]
    for waiter in waiters:
        waiter.leave()


def test_a_refusal_is_known_elsewhere_and_so_is_its_end(redis_registry, waiter_of, eventually, together, soon):
    here, there = redis_registry(poll=30.0), redis_registry(poll=30.0)
    leader, follower = waiter_of(here), waiter_of(there)
    leader.verdict(locked=[KEY], free=[])

    def probe():
        got = leader.wait([KEY], 0.3, soon)
        leader.verdict(locked=[], free=[KEY])
        leader.leave()
        return got

    def follow():
        eventually(lambda: there.knows([KEY]))
        got = follower.wait([KEY], 100.0, soon)
        follower.leave()
        return got

    assert together(probe, follow) == [{KEY}, {KEY}]
    eventually(lambda: not here and not there)


def test_one_that_asks_and_leaves_without_an_answer_holds_up_no_other_process(
    redis_registry, waiter_of, eventually, together, soon
):
    here, there = redis_registry(poll=30.0), redis_registry(poll=30.0)
    leader, follower = waiter_of(here), waiter_of(there)
    leader.verdict(locked=[KEY], free=[])
    assert leader.wait([KEY], 0.01, soon) == {KEY}
    eventually(lambda: there.knows([KEY]) and there.table.locks[KEY].asker is there.remote)

    def leave():
        follower.asleep()
        leader.leave()

    def follow():
        got = follower.wait([KEY], 0.05, soon)
        follower.leave()
        return got

    assert together(leave, follow)[1] == {KEY}


def test_without_messages_followers_ask_redis_before_they_ask_crm(redis_registry, waiter_of, together, soon):
    here, there = redis_registry(), redis_registry()
    there.on_message = len
    leader, follower = waiter_of(here), waiter_of(there)
    for waiter in (leader, follower):
        waiter.verdict(locked=[KEY], free=[])
    assert leader.wait([KEY], 0.01, soon) == {KEY}

    def answer():
        follower.asleep()
        SystemClock().wait(threading.Event(), 0.15)
        order.append("answer")
        leader.verdict(locked=[], free=[KEY])
        leader.leave()

    def follow():
        got = follower.wait([KEY], 0.02, soon)
        order.append("question")
        follower.leave()
        return got

    order = []
    assert together(answer, follow)[1] == {KEY}
    assert order == ["answer", "question"]


def test_the_calls_of_all_processes_count_without_a_command_for_each(redis_registry, waiter_of, eventually, soon):
    here, there = redis_registry(lease=30.0), redis_registry(lease=30.0)
    told = []
    tell = there.link.tell
    there.link.tell = lambda needs: (told.append(dict(needs)) if needs else None, tell(needs))
    leader = waiter_of(here)
    leader.verdict(locked=[KEY], free=[])
    eventually(lambda: there.knows([KEY]))
    followers = [waiter_of(there) for _ in range(64)]
    deadline = SystemClock().now() + 0.3
    waits = [threading.Thread(target=one.wait, args=([KEY], 100.0, deadline)) for one in followers]
    for wait in waits:
        wait.start()
    eventually(lambda: here.table.locks[KEY].elsewhere >= 32)
    assert len(told) <= 7
    for wait, follower in zip(waits, followers, strict=True):
        wait.join()
        follower.leave()
    eventually(lambda: here.table.locks[KEY].elsewhere == 0)
    assert len(told) <= 14
    leader.leave()
    eventually(lambda: not here and not there)


def test_calls_that_need_a_record_elsewhere_make_the_leader_ask_sooner(
    redis_registry, waiter_of, eventually, together, soon
):
    here, there = redis_registry(), redis_registry()
    leader, followers = waiter_of(here), [waiter_of(there) for _ in range(8)]
    leader.verdict(locked=[KEY], free=[])

    def lead():
        began = SystemClock().now()
        got = leader.wait([KEY], 1.8, soon)
        leader.verdict(locked=[], free=[KEY])
        leader.leave()
        return got, SystemClock().now() - began

    def follow(one):
        leader.asleep()
        eventually(lambda: there.knows([KEY]) or not here)
        got = one.wait([KEY], 60.0, soon)
        one.verdict(locked=[], free=[KEY])
        one.leave()
        return got

    (got, took), *others = together(lead, *(lambda one=one: follow(one) for one in followers))
    assert got == {KEY}
    assert took < 1.3, "1.8 s for one call, 0.6 s for nine"
    assert others == [{KEY}] * 8


def test_two_processes_never_probe_one_record_at_once(redis_registry, crm, call, together):
    registries = [redis_registry() for _ in range(3)]
    crm.lock(KEY)
    mutex, asking, most, first = threading.Lock(), set(), [], set()

    def send(name, keys):
        if name in first:
            with mutex:
                asking.add(name)
                most.append(len(asking) if crm.unlocks[KEY] == float("inf") else 0)
        locked = crm.send(name, keys)
        if name in first:
            SystemClock().wait(threading.Event(), 0.02 if locked else 0.0)
            with mutex:
                asking.discard(name)
        first.add(name)
        if crm.calls == 24:
            crm.unlock(KEY)
        return locked

    jobs = [(n, registries[n % 3]) for n in range(18)]
    together(*(lambda n=n, one=one: call(one, crm, n, [KEY], send=send) for n, one in jobs))
    assert sorted(crm.writes) == [(n, KEY) for n in range(18)]
    assert max(most) == 1


@pytest.mark.parametrize("options", [{"poll": 30.0, "lease": 30.0}, {"lease": 0.06}], ids=["pushed", "not heard"])
def test_slots_are_counted_over_all_processes_and_go_to_the_first_in_line(
    redis_registry, waiter_of, together, soon, options
):
    """Whoever releases one gives it away. A message that does not arrive costs a heartbeat."""
    here, there = redis_registry(wake_at_once=1, **options), redis_registry(wake_at_once=1, **options)
    if options["lease"] < 1:
        here.on_message = there.on_message = len
    awake, most = set(), []

    def run(waiter):
        assert waiter.wait([KEY], 1.0, soon) == {KEY}
        awake.add(waiter)
        most.append(len(awake))
        SystemClock().wait(threading.Event(), 0.002)
        awake.discard(waiter)
        waiter.verdict(locked=[], free=[KEY])
        waiter.leave()

    waiters = [waiter_of(one) for one in (here, there) * 6]
    together(*(lambda one=one: run(one) for one in waiters))
    assert most == [1] * 12
    assert not here.slots
    assert not here.awaiting_slot


def test_every_key_has_a_time_to_live_and_goes_with_its_call(redis_registry, server, waiter_of, soon):
    registry, prefix = redis_registry(), "mine:"
    registry = redis_registry(prefix=prefix)
    waiter, other = waiter_of(registry), waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    assert waiter.wait([KEY], 0.02, soon)
    assert other.wait(["o|2"], 0.02, soon)
    with redis.Redis.from_url(server.url) as client:
        keys = {key.decode(): client.pttl(key) for key in client.scan_iter(prefix + "*")}
        assert set(keys) == {"mine:lock:o|1", "mine:pace:o", f"mine:alive:{registry.link.process}"}
        assert all(0 < millis <= 600 for millis in keys.values())
        waiter.leave()
        other.leave()
        assert list(client.scan_iter(prefix + "*")) in ([], [f"mine:alive:{registry.link.process}".encode()])


def test_the_heartbeat_keeps_a_long_question(redis_registry, server, waiter_of, soon, eventually):
    registry = redis_registry(prefix="heartbeat:", lease=0.1)
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    assert waiter.wait([KEY], 0.01, soon) == {KEY}, "and has no answer for a while"
    with redis.Redis.from_url(server.url) as client:
        lifetimes = []
        eventually(lambda: lifetimes.append(client.pttl("heartbeat:lock:o|1")) or len(lifetimes) > 60)
    assert min(lifetimes) > 0, "60 looks take longer than the lease"
    waiter.leave()


def test_a_lock_of_a_process_that_died_is_forgotten(redis_registry, waiter_of, eventually):
    here, there = redis_registry(wait_max=0.1), redis_registry()
    here.on_message(b'{"by": "x", "kind": "locked", "calls": [1], "keys": ["o|1"]}')
    assert here.knows([KEY])
    eventually(lambda: not here)
    assert not there


@pytest.mark.parametrize(
    "message", [b"", b"no json", b"[]", b"7", b'{"by": 1}', b'{"by": 1, "kind": "x", "keys": ["k"]}']
)
def test_messages_of_another_kind_are_ignored(redis_registry, message):
    registry = redis_registry()
    registry.on_message(message)
    assert not registry


class TestRedisFails:
    def finish(self, registry, crm, call, together):
        crm.lock(KEY, seconds=0.1)
        left = together(*(lambda n=n: call(registry, crm, n, [KEY]) for n in range(10)))
        assert left == [set()] * 10
        assert len(crm.writes) == 10

    def test_it_is_down_at_the_start(self, crm, call, together, caplog):
        registry = RedisLockRegistry("redis://:hunter2@127.0.0.1:1/0", **QUICK)
        self.finish(registry, crm, call, together)
        registry.close()
        assert [record.name for record in warnings(caplog)] == ["crm_guard.locks"]
        assert "hunter2" not in caplog.text + repr(registry)

    def test_it_dies_in_the_middle(self, redis_server_of_its_own, crm, call, together, caplog, eventually):
        server = redis_server_of_its_own()
        registry = RedisLockRegistry(server.url, **QUICK)
        crm.lock(KEY)

        def die():
            eventually(lambda: crm.calls > 12)  # they wait, and ask in turn
            server.stop()
            eventually(lambda: not registry.link.up)
            crm.unlock(KEY)

        together(die, *(lambda n=n: call(registry, crm, n, [KEY]) for n in range(10)))
        assert len(crm.writes) == 10
        assert len(warnings(caplog)) == 1
        server.start()
        eventually(lambda: registry.link.up)
        self.finish(registry, type(crm)(), call, together)
        registry.close()
        assert len(warnings(caplog)) == 1

    def test_calls_in_line_for_a_slot_go_on_at_once_when_it_fails(
        self, redis_server_of_its_own, waiter_of, together, eventually
    ):
        server = redis_server_of_its_own()
        registry = RedisLockRegistry(server.url, **{**QUICK, "lease": 30.0}, wake_at_once=1)
        other = RedisLockRegistry(server.url, **{**QUICK, "lease": 30.0}, wake_at_once=1)
        holder, waiter = waiter_of(other), waiter_of(registry)
        soon = SystemClock().now() + 30
        assert holder.wait([KEY], 1.0, soon) == {KEY}

        def fail():
            eventually(lambda: registry.awaiting_slot)
            server.stop()

        assert together(fail, lambda: waiter.wait([KEY], 1.0, SystemClock().now() + 5))[1] == {KEY}
        for one in (registry, other):
            one.close()

    def test_it_is_slow(self, redis_server_of_its_own, crm, call, together, caplog):
        server = redis_server_of_its_own()
        registry = RedisLockRegistry(server.url, socket_timeout=0.05, **QUICK)
        server.process.send_signal(signal.SIGSTOP)
        self.finish(registry, crm, call, together)
        server.process.send_signal(signal.SIGCONT)
        registry.close()
        assert len(warnings(caplog)) == 1

    def test_it_is_full(self, redis_server_of_its_own, crm, call, together, caplog):
        server = redis_server_of_its_own("--maxmemory", "1", "--maxmemory-policy", "noeviction")
        registry = RedisLockRegistry(server.url, **QUICK)
        self.finish(registry, crm, call, together)
        registry.close()
        assert len(warnings(caplog)) == 1

    def test_it_wants_another_password(self, redis_server_of_its_own, crm, call, together, caplog):
        server = redis_server_of_its_own()
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", "open sesame")
        registry = RedisLockRegistry(server.url.replace("//", "//:hunter2@"), **QUICK)
        self.finish(registry, crm, call, together)
        registry.close()
        assert len(warnings(caplog)) == 1
        assert "hunter2" not in caplog.text + repr(registry)


def test_a_client_of_ones_own_is_used_and_left_open(server, waiter_of, soon):
    with redis.Redis.from_url(server.url, socket_timeout=1, decode_responses=True) as client:
        registry = RedisLockRegistry(client, prefix="own:", **QUICK)
        waiter = waiter_of(registry)
        waiter.verdict(locked=[KEY], free=[])
        assert waiter.wait([KEY], 0.02, soon) == {KEY}
        assert client.exists("own:lock:o|1")
        waiter.leave()
        other = copy.deepcopy(registry)
        assert other._client is client
        other.close()
        registry.close()
        assert client.ping()


def test_a_pickle_starts_anew_on_the_same_redis(redis_registry):
    registry = redis_registry(wake_at_once=4)
    other = pickle.loads(pickle.dumps(registry))  # noqa: S301
    assert (other.limit, other._prefix, other._times) == (4, registry._prefix, registry._times)
    assert other.link.process != registry.link.process
    other.close()


def test_calls_go_on_after_close(redis_registry, crm, call, together):
    registry = redis_registry()
    registry.close()
    registry.close()
    crm.lock(KEY, seconds=0.05)
    together(*(lambda n=n: call(registry, crm, n, [KEY]) for n in range(5)))
    assert len(crm.writes) == 5


def test_a_dropped_registry_ends_its_thread(server, eventually):
    registry = RedisLockRegistry(server.url, prefix="gone:", **QUICK)
    listener = registry._listener
    del registry
    eventually(lambda: not listener.is_alive())


def test_guards_of_one_process_share_a_registry_that_outlives_their_sessions_but_not_the_guards(server, eventually):
    settings = GuardSettings(lock_registry=server.url)
    adapters = [GuardAdapter(settings) for _ in range(20)]
    (registry,) = {adapter.locks for adapter in adapters}
    listener = registry._listener
    with requests.Session() as session:
        session.mount("https://", adapters[0])
    assert registry.link.check()
    assert GuardAdapter(GuardSettings(lock_registry=server.url, wake_at_once=3)).locks is not registry
    assert GuardAdapter(settings, clock=SystemClock()).locks is not registry, "instants of another clock"
    assert listener.is_alive()
    del adapters, session, registry
    gc.collect()
    eventually(lambda: not listener.is_alive())


def test_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"crm-guard\[redis\]"):
        RedisLockRegistry("redis://127.0.0.1:1/0")


def test_the_package_exports_it_by_name_and_no_name_that_does_not_exist():
    from crm_guard import locks

    assert locks.RedisLockRegistry is RedisLockRegistry
    assert all(getattr(locks, name) for name in locks.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'MemcachedLockRegistry'"):
        _ = locks.MemcachedLockRegistry
