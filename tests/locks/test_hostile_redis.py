"""Redis is never trusted: whatever it answers, however slowly, a call goes on without it.

Bytes are dripped by a proxy before a real Redis, for two seconds: a call that is held until then is found out.
"""

import copy
import gc
import json
import os
import pickle
import select
import signal
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
import weakref
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count, product

import pytest
import redis
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard import GuardAdapter, GuardSettings
from crm_guard.clock import SystemClock
from crm_guard.locks.redis import RedisLockRegistry, shared_registry
from crm_guard.simulator import Simulator

KEY, OTHER = "o|1", "o|2"
QUICK = {"lease": 0.3, "poll": 0.05, "retry_after": 0.05, "socket_timeout": 0.1}
HOLDS = 2.0
"""Seconds that a server of ours drips."""
SOON = 1.0
"""Seconds within which a call must be back: less than a server drips, more than a busy machine takes."""
NOWHERE = "redis://127.0.0.1:1/0"
DEAD = "0" * 32
"""A process that holds a claim, and is no more."""
ROW = {"data": [{"Company": "Zylker"}]}


def now():
    return SystemClock().now()


def warnings(caplog):
    return [
        record.getMessage() for record in caplog.records if record.name == "crm_guard.locks" and record.levelno > 20
    ]


def threads_of_ours():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("crm_guard-")]


@pytest.fixture(autouse=True)
def no_thread_stays(eventually):
    yield
    eventually(lambda: not threads_of_ours())


@pytest.fixture
def client(server):
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def decodes():
    """Whether the client of a registry decodes what it reads; see `both_kinds`."""
    return False


both_kinds = pytest.mark.parametrize("decodes", [False, True], ids=["bytes", "decoded"])


@pytest.fixture
def make(server, decodes, request):
    """A function that makes registries, each on a client of its own, as other processes would."""
    with ExitStack() as stack:

        def make(**options):
            client = stack.enter_context(redis.Redis.from_url(server.url, decode_responses=decodes))
            given = {**QUICK, "socket_timeout": 1.0, "prefix": f"{request.node.name}:", **options}
            return stack.enter_context(closing(RedisLockRegistry(client, **given)))

        yield make


@pytest.fixture
def lone():
    """A registry whose Redis is away: only the messages passed to it count."""
    with closing(RedisLockRegistry(NOWHERE, wait_max=5.0, **QUICK)) as registry:
        yield registry


def name_of(registry, key, kind="lock"):
    return f"{registry._prefix}{kind}:{key}"


def seconds_of(job):
    """Return how long a job takes, and what it returns."""
    began = now()
    result = job()
    return now() - began, result


class Proxy(socketserver.ThreadingTCPServer):
    """Stands before a Redis; whoever sends or is to get a word of `drips` gets bytes that never end, one by one."""

    daemon_threads = block_on_close = False
    allow_reuse_address = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), ProxiedConnection)
        self.behind, self.drips, self.dripped = port, (), threading.Event()
        self.url = f"redis://127.0.0.1:{self.server_address[1]}/0"
        self.closing = threading.Event()


class ProxiedConnection(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(("127.0.0.1", self.server.behind)) as upstream, suppress(OSError):
            while not self.server.closing.is_set() and self.passed_on(upstream):
                pass

    def passed_on(self, upstream):
        """Pass on what has come; return whether there may be more."""
        ready, _, _ = select.select([self.request, upstream], [], [], 0.02)
        for source in ready:
            data = source.recv(65536)
            if any(word in data for word in self.server.drips):
                self.drip()
                return False
            if not data:
                return False
            (upstream if source is self.request else self.request).sendall(data)
        return True

    def drip(self):
        self.server.dripped.set()
        self.request.sendall(b":")
        for _ in range(int(HOLDS / 0.02)):
            self.request.sendall(b"1")
            if self.server.closing.wait(0.02):
                return


@contextmanager
def served(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        if hasattr(server, "closing"):
            server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def proxy(server):
    with served(Proxy(server.port)) as proxy:
        yield proxy


# -- messages of any content

words = st.text(max_size=5) | st.sampled_from(["asked", "locked", "free", "release", "need", "slot", KEY, "x"])
numbers = st.integers() | st.floats() | st.sampled_from([1e308, -1e308, 10**400, -(10**400), 2**63, True])
values = st.recursive(
    st.none() | numbers | words, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=5
)
alike = st.fixed_dictionaries(
    {
        "by": words | values,
        "kind": st.sampled_from(["asked", "locked", "free", "release", "need", "slot"]) | values,
        "keys": st.lists(words, max_size=2) | values,
    },
    optional={"after": numbers | values, "calls": st.lists(numbers | values, max_size=2) | values},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.binary(max_size=40) | (values | alike).map(json.dumps))
def test_messages_of_any_content_are_no_error_and_hold_no_record_for_long(lone, message):
    lone.on_message(message)
    lone.heartbeat()
    with lone.mutex:
        held = [max(lock.not_before, lone._forgotten_at(lock)) - now() for lock in lone.table.locks.values()]
        needs = [lock.elsewhere for lock in lone.table.locks.values()]
    assert all(seconds <= 5.0 + QUICK["poll"] for seconds in held)
    assert all(0 <= need <= 1e9 for need in needs)
    assert all(isinstance(key, str) for key in lone.table.locks)


ODD_MESSAGES = {
    "nested": b"[" * 90_000,
    "endless": b'{"by": "x", "kind": "locked", "keys": ["' + b"k" * 1_000_000 + b'"]}',
    "no utf-8": b'{"by": "\xff\xfe", "kind": "locked", "keys": ["o|1"]}',
    "binary": bytes(range(256)),
    "digits": b'{"by": "x", "kind": "locked", "after": 1' + b"0" * 400 + b', "keys": ["far"]}',
    "more digits": b'{"by": "x", "kind": "locked", "after": 1' + b"0" * 5000 + b', "keys": ["o|1"]}',
    "nan": b'{"by": "x", "kind": "locked", "after": NaN, "keys": ["o|1"]}',
    "infinity": b'{"by": "x", "kind": "locked", "after": -Infinity, "keys": ["o|1"]}',
    "text": b'{"by": "x", "kind": "locked", "after": "7", "keys": ["o|1"]}',
    "boolean": b'{"by": "x", "kind": "locked", "after": true, "keys": ["o|1"]}',
    "null": b'{"by": "x", "kind": "locked", "after": null, "keys": ["o|1"]}',
    "numbers": b'{"by": "x", "kind": "locked", "after": 7, "keys": [1, null, ["o|1"]]}',
    "no list": b'{"by": "x", "kind": "locked", "after": 7, "keys": "o|1"}',
    "nobody": b'{"by": null, "kind": "locked", "after": 7, "keys": ["o|1"]}',
    "too few": b'{"by": "x", "kind": "need", "calls": [], "keys": ["o|1"]}',
    "uncountable": b'{"by": "x", "kind": "need", "calls": ["many"], "keys": ["o|1"]}',
    "nothing": b"null",
}


@both_kinds
def test_odd_messages_reach_the_listener_and_change_nothing(make, client, eventually, caplog):
    """It stays subscribed by the same connection, and hears what is proper among them."""
    registry = make()
    channel = registry.link.channel

    def subscribers():
        return {one["id"] for one in client.client_list(_type="pubsub")}

    before = subscribers()
    for message in ODD_MESSAGES.values():
        client.publish(channel, message)
    client.publish(channel, json.dumps({"by": "x", "kind": "locked", "after": 5, "keys": [OTHER]}))
    eventually(lambda: registry.knows([OTHER]))
    assert not registry.knows([KEY])
    assert before <= subscribers()
    assert registry.link.up
    assert warnings(caplog) == []


# -- keys of any content

ODD_KEYS = {
    "list": lambda client, key: client.rpush(key, "a"),
    "hash": lambda client, key: client.hset(key, "a", "b"),
    "set": lambda client, key: client.sadd(key, "a"),
    "sorted set": lambda client, key: client.zadd(key, {"a": 1}),
    "stream": lambda client, key: client.xadd(key, {"a": "b"}),
    "no blank": lambda client, key: client.set(key, "word"),
    "no number": lambda client, key: client.set(key, "abc soon"),
    "negative": lambda client, key: client.set(key, f"{DEAD} -5"),
    "empty": lambda client, key: client.set(key, ""),
    "binary": lambda client, key: client.set(key, bytes(range(256))),
    "long": lambda client, key: client.set(key, b"0" * 1_000_000),
}


@both_kinds
def test_a_key_of_another_program_is_left_alone_and_costs_its_record_the_sharing_at_most(
    make, client, waiter_of, soon, eventually, caplog
):
    here, there = make(poll=9.0), make(poll=9.0)
    places = {f"o|{kind}": name_of(here, f"o|{kind}") for kind in ODD_KEYS}
    for kind, put in ODD_KEYS.items():
        put(client, places[f"o|{kind}"])
    before = {place: client.dump(place) for place in places.values()}
    keys = {*places, KEY}
    for registry in (here, there):
        waiter = waiter_of(registry)
        waiter.verdict(locked=keys, free=[])
        assert waiter.wait(keys, 0.01, soon) == keys
        registry.heartbeat()
        waiter.verdict(locked=[], free=keys)
        waiter.leave()
    assert {place: client.dump(place) for place in places.values()} == before
    assert {client.ttl(place) for place in places.values()} == {-1}
    waiter = waiter_of(here)  # for a record without earlier news: those may still be on their way
    waiter.verdict(locked=[OTHER], free=[])
    assert waiter.wait([OTHER], 0.01, soon) == {OTHER}
    eventually(lambda: there.knows([OTHER]))
    waiter.leave()
    client.delete(*places.values())
    assert warnings(caplog) == []


def test_a_pace_of_another_program_paces_nobody(make, client, waiter_of, soon, caplog):
    registry = make(wake_at_once=1)
    for what, (kind, put) in product(("pace", "line"), ODD_KEYS.items()):
        place = name_of(registry, kind, what)
        put(client, place)
        before = client.dump(place)
        waiter = waiter_of(registry)
        assert waiter.wait([f"{kind}|1"], 1.0, soon) == {f"{kind}|1"}
        registry.heartbeat()
        waiter.leave()
        assert client.dump(place) == before or kind == "sorted set", "that one is ours"
        client.delete(place)
    assert warnings(caplog) == []


def test_slots_that_no_clock_of_ours_could_give_do_not_count(make, client, waiter_of, soon):
    """As after a failover to a server whose clock is an hour behind."""
    registry = make(wake_at_once=1, verdict_timeout=90.0)
    place = name_of(registry, "o", "pace")
    client.zadd(
        place, {f"{DEAD}:{number}": (client.time()[0] + 3600) * 1000 for number in range(9)} | {"x": "+inf"}
    )
    waiter = waiter_of(registry)
    took, going = seconds_of(lambda: waiter.wait([KEY], 1.0, soon))
    assert going == {KEY}
    assert took < SOON
    waiter.leave()
    client.delete(place)


@both_kinds
def test_a_registry_on_a_client_of_either_kind_shares_as_any_other(make, waiter_of, eventually, together, soon):
    here, there = make(poll=30.0), make(poll=30.0)
    leader, follower = waiter_of(here), waiter_of(there)
    leader.verdict(locked=[KEY], free=[])

    def probe():
        going = leader.wait([KEY], 0.2, soon)
        leader.verdict(locked=[], free=[KEY])
        leader.leave()
        return going

    def follow():
        eventually(lambda: there.knows([KEY]))
        going = follower.wait([KEY], 100.0, soon)
        follower.leave()
        return going

    assert together(probe, follow) == [{KEY}, {KEY}]
    eventually(lambda: not here and not there)


# -- what holds a record back


def claim_of_another(client, registry, *, key=KEY, px=None):
    """Have another process hold the claim on a record."""
    client.set(name_of(registry, key), DEAD, px=px)


def test_a_record_that_crm_is_not_to_be_asked_about_for_years_is_asked_about_after_our_longest_wait(
    make, waiter_of
):
    registry = make(wait_max=0.1)
    for after in ("3600", "1e308", "1e999", "1" + "0" * 400):
        registry.on_message(f'{{"by": "{DEAD}", "kind": "locked", "after": {after}, "keys": ["o|{after}"]}}')
    keys = set(registry.table.locks)
    assert len(keys) == 4
    waiter = waiter_of(registry)
    end, left = now() + 3, set(keys)

    def until_all_may_go():  # on a busy machine the messages came at different times
        while left and now() < end:
            left.difference_update(waiter.wait(left, 0.05, end))

    took, _ = seconds_of(until_all_may_go)
    assert not left
    assert took < SOON
    waiter.leave()


def test_calls_elsewhere_beyond_number_make_nobody_ask_all_the_time(make, waiter_of):
    registry = make()
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    for calls in ("1e308", "1" + "0" * 400, "-1e308", "7e9"):
        registry.on_message(f'{{"by": "{DEAD}", "kind": "need", "calls": [{calls}], "keys": ["{KEY}"]}}')
    assert 0 <= registry.table.locks[KEY].elsewhere <= 1e7
    assert waiter.wait([KEY], 2.0, now() + 0.4) == frozenset(), "0.6 s is the least"
    waiter.leave()


@both_kinds
def test_a_claim_holds_for_as_long_as_its_owner_prolongs_it(make, client, waiter_of):
    registry = make(wait_max=0.1, lease=9.0)
    claim_of_another(client, registry, px=9000)
    assert registry.link.claim([OTHER, KEY]) == [KEY]
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY], free=[])
    assert waiter.wait([KEY], 0.01, now() + 0.25) == frozenset()
    assert client.get(name_of(registry, KEY)) in {DEAD, DEAD.encode()}
    waiter.leave()
    client.delete(name_of(registry, KEY), name_of(registry, OTHER))


def test_a_claim_that_nobody_prolongs_ends_with_its_lease_whatever_its_time_to_live(make, client, waiter_of):
    """As after a failover to a server whose clock is an hour behind, the owner having died."""
    registry = make(wait_max=0.2, lease=0.2)
    claim_of_another(client, registry)
    claim_of_another(client, registry, key=OTHER, px=3_600_000)
    waiter = waiter_of(registry)
    waiter.verdict(locked=[KEY, OTHER], free=[])
    took, going = seconds_of(lambda: waiter.wait([KEY, OTHER], 0.05, now() + 3))
    assert going == {KEY, OTHER}
    assert took < SOON
    waiter.leave()


# -- bytes that drip


@pytest.fixture
def guarded():
    """A function that makes a session with a guard on a simulated CRM, sharing through a Redis URL."""
    with ExitStack() as stack:

        def make(crm, url, timeout):
            adapter = GuardAdapter(
                GuardSettings(lock_registry=url, timeout=timeout, wait_initial=0.05, wait_max=0.1, raise_on="never")
            )
            session = stack.enter_context(requests.Session())
            session.mount(crm.url, adapter)
            stack.callback(adapter.locks.close)
            return session

        yield make


def test_a_call_with_a_small_budget_ends_in_time_though_redis_drips(proxy, guarded, caplog):
    with Simulator() as crm:
        lead = crm.add_record("Leads", state="zia_vision_validation")
        session = guarded(crm, proxy.url, timeout=0.3)
        assert session.get_adapter(crm.url).locks.link.up
        proxy.drips = (b"EVAL",)
        took, response = seconds_of(lambda: session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW))
    assert proxy.dripped.is_set()
    assert response.status_code != 200
    assert took < 0.3 + 0.25 + 0.5, "budget, one timeout, and what a busy machine takes"
    assert warnings(caplog) == [
        "Redis fails (TimeoutError): locks are shared within this process only until it is back"
    ]


def test_a_call_is_finished_though_redis_drips(proxy, guarded):
    with Simulator() as crm:
        lead = crm.add_record("Leads", locked_for=0.1)
        session = guarded(crm, proxy.url, timeout=60.0)
        proxy.drips = (b"EVAL",)
        took, response = seconds_of(lambda: session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW))
    assert response.status_code == 200
    assert crm.writes(lead) == 1
    assert took < SOON


WORDS = [b"HELLO", b"CLIENT", b"SELECT", b"SUBSCRIBE", b"EVAL"]


def test_dripping_from_some_command_on_delays_construction_once_and_calls_never(server, crm, call, together):
    crm.lock(KEY, seconds=0.15)

    def meet(word):
        with served(Proxy(server.port)) as proxy:
            proxy.drips = (word,)
            took, registry = seconds_of(
                lambda: RedisLockRegistry(proxy.url.replace("/0", "/1?protocol=3"), **QUICK)
            )
            with closing(registry):
                times = [took, seconds_of(lambda: call(registry, crm, word, [KEY]))[0]]
                assert proxy.dripped.is_set()
                return [*times, seconds_of(registry.close)[0]]

    times = together(*(lambda word=word: meet(word) for word in WORDS))
    assert max(time for each in times for time in each) < SOON, dict(zip(WORDS, times, strict=True))
    assert len(crm.writes) == len(WORDS)


def test_messages_that_drip_hold_neither_calls_nor_close(proxy, crm, call, together, client):
    """The listener's own connection drips in the middle of a message, and the others do not."""
    with closing(RedisLockRegistry(proxy.url, **{**QUICK, "socket_timeout": 0.3})) as registry:
        proxy.drips = (b"drip on me",)
        client.publish(registry.link.channel, "drip on me")
        assert proxy.dripped.wait(5)
        crm.lock(KEY, seconds=0.05)
        took, left = seconds_of(lambda: together(*(lambda n=n: call(registry, crm, n, [KEY]) for n in range(9))))
        assert left == [set()] * 9
        assert took < SOON
        took, _ = seconds_of(registry.close)
        assert took < SOON


def test_it_is_used_again_once_it_drips_no_more_and_no_thread_is_left_hanging(proxy, eventually):
    with closing(RedisLockRegistry(proxy.url, **QUICK)) as registry:
        for _ in range(2):
            proxy.drips = (b"EVAL",)
            took, _ = seconds_of(lambda: registry.link.renew([KEY]))
            assert took < SOON
            assert not registry.link.up
            proxy.drips = ()
            eventually(lambda: registry.link.up)
        assert len(threads_of_ours()) <= 4


def test_where_one_call_met_a_timeout_no_other_waits(proxy, together):
    """Whatever timeout the URL sets for a single read."""
    with closing(RedisLockRegistry(proxy.url + "?socket_timeout=30", **QUICK)) as registry:
        proxy.drips = (b"EVAL",)

        def renew():
            return seconds_of(lambda: registry.link.renew([KEY]))[0]

        assert max(together(*[renew] * 20)) < SOON
        assert max(renew() for _ in range(20)) < 0.05


def test_a_client_of_ones_own_that_hangs_is_left_alone_and_left_out(proxy, eventually, caplog):
    """Its connections are not ours to close. As long as its command hangs, no other is started."""
    with redis.Redis.from_url(proxy.url, socket_timeout=10, retry=None) as client:
        registry = RedisLockRegistry(client, **QUICK)
        assert registry.link.up
        proxy.drips = (b"EVAL",)
        took, _ = seconds_of(lambda: registry.link.renew([KEY]))
        assert took < SOON
        SystemClock().wait(threading.Event(), 0.2)  # some tries would have been due
        assert len(threads_of_ours()) <= 4
        took, _ = seconds_of(registry.close)
        assert took < SOON
        assert len(warnings(caplog)) == 1
        proxy.closing.set()
        eventually(lambda: not threads_of_ours())


def test_a_redis_that_hangs_keeps_nobody_from_another_one(proxy, server, together):
    with served(Proxy(server.port)) as slow:
        slow.drips = (b"HELLO", b"CLIENT", b"SUBSCRIBE")

        def construct(url):
            with closing(shared_registry(url, wake_at_once=10)) as registry:
                return registry.link.up

        urls = [slow.url] * 5 + [slow.url.replace("/0", f"/{number}") for number in range(1, 6)] + [proxy.url]
        took, up = seconds_of(lambda: together(*(lambda url=url: construct(url) for url in urls)))
        assert up == [False] * 10 + [True]
        assert took < HOLDS


def test_a_process_ends_though_redis_drips(proxy):
    """Neither the threads that hang nor the listener keep it."""
    program = """
        import sys, threading
        from crm_guard.locks.redis import RedisLockRegistry

        registry = RedisLockRegistry(sys.argv[1], socket_timeout=0.5)
        assert registry.link.up
        print("up", flush=True)
        sys.stdin.readline()
        registry.link.renew(["o|1"])
        assert not registry.link.up
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), proxy.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        proxy.drips = (b"EVAL",)
        took, _ = seconds_of(lambda: process.communicate("go\n"))
    assert process.returncode == 0
    assert took < HOLDS - 0.2


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("what", ["a claim", "a slot"])
def test_ctrl_c_gets_through_to_a_call_that_waits_for_redis_and_leaves_nothing_behind(
    proxy, client, waiter_of, eventually, soon, what
):
    """The command itself goes on in its thread: what it claims is given back."""
    with closing(
        RedisLockRegistry(proxy.url, **{**QUICK, "lease": 9.0, "socket_timeout": 10.0, "prefix": "ctrl-c:"})
    ) as registry:
        waiter = waiter_of(registry)
        if what == "a claim":
            waiter.verdict(locked=[KEY], free=[])
        name = "_claim" if what == "a claim" else "_eval"
        slow, entered, go_on = getattr(registry.link, name), threading.Event(), threading.Event()

        def held_up(*args, **options):
            entered.set()
            go_on.wait(10)
            return slow(*args, **options)

        setattr(registry.link, name, held_up)

        def press():
            entered.wait(10)
            os.kill(os.getpid(), signal.SIGINT)

        presser = threading.Thread(target=press)
        presser.start()
        began = now()
        with pytest.raises(KeyboardInterrupt):
            waiter.wait([KEY], 0.01, soon)
        assert now() - began < SOON
        presser.join()
        go_on.set()
        eventually(lambda: registry.link.idle)
        assert client.exists("ctrl-c:lock:o|1", "ctrl-c:pace:o") == 1
        waiter.leave()
        assert not list(client.scan_iter("ctrl-c:[lp]*"))
        assert not registry
        assert not registry.claims
        assert not registry.slots


# -- no Redis at all

GARBAGE = [b"", b"\0" * 64, b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*-1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
GARBAGE += [b"*3\r\n:1\r\n:2\r\n:3\r\n", b"*2\r\n:7\r\n:7\r\n", b"*2\r\n$1\r\nx\r\n:7\r\n", b"*1\r\n" * 100_000]
GARBAGE += [b"$99999999999\r\nx", b":" + b"9" * 10_000 + b"\r\n", b"%1\r\n*0\r\n:1\r\n", b">2\r\n+x\r\n+y\r\n"]


class Babbler(socketserver.ThreadingTCPServer):
    """Says one thing, whatever it is asked."""

    daemon_threads = block_on_close = False
    allow_reuse_address = True

    def __init__(self, says):
        super().__init__(("127.0.0.1", 0), BabbledConnection)
        self.says = says
        self.url = f"redis://127.0.0.1:{self.server_address[1]}/0?protocol=2"


class BabbledConnection(socketserver.BaseRequestHandler):
    def handle(self):
        with suppress(OSError):
            while self.request.recv(65536):
                self.request.sendall(self.server.says)


def test_closing_is_no_outage(make, caplog):
    for _ in range(20):
        make().close()
    assert warnings(caplog) == []


def test_a_server_that_is_no_redis_is_done_without(crm, call, together):
    crm.lock(KEY, seconds=0.15)

    def meet(garbage):
        with served(Babbler(garbage)) as server:
            took, registry = seconds_of(lambda: RedisLockRegistry(server.url, **QUICK))
            with closing(registry):
                assert call(registry, crm, garbage, [KEY]) == set()
                assert not registry.link.up
            return took

    times = together(*(lambda garbage=garbage: meet(garbage) for garbage in GARBAGE))
    assert max(times) < SOON, times
    assert len(crm.writes) == len(GARBAGE)


REPLIES = [
    [0],
    [1, 2, 3],
    [7, 7],
    ["x", 7],
    [1, "x"],
    [1, float("nan")],
    [1, 10**400],
    [[1], 1],
    1,
    b"OK",
    object(),
]


def test_a_claim_whose_answer_makes_no_sense_is_granted(make, waiter_of, soon):
    registry = make(retry_after=60.0)
    for reply in REPLIES:
        registry.link._scripts["claim"] = lambda reply=reply, **_: reply
        registry.link.up = True
        waiter = waiter_of(registry)
        waiter.verdict(locked=[KEY], free=[])
        assert waiter.wait([KEY], 0.001, soon) == {KEY}
        waiter.leave()
        assert not registry.link.up


# -- the threads that talk to Redis


@pytest.fixture
def pool():
    from crm_guard.locks.workers import WorkerPool

    with closing(WorkerPool(2)) as pool:
        yield pool


def test_what_is_not_started_in_time_is_never_started(pool, eventually):
    """A pool full of hanging functions is no failure of the caller, and nothing is run later without it."""
    from crm_guard.locks.workers import PoolBusy

    go_on, done = threading.Event(), []
    for _ in range(2):
        with pytest.raises(TimeoutError):
            pool.run(go_on.wait, 0.01)
    with pytest.raises(PoolBusy):
        pool.run(lambda: done.append("late"), 0.01)
    assert not pool.idle
    go_on.set()
    eventually(lambda: pool.idle)
    assert pool.run(lambda: "in time", 5) == "in time"
    assert done == []


def test_errors_come_back_to_the_one_who_waits(pool):
    with pytest.raises(ZeroDivisionError):
        pool.run(lambda: 1 / 0, 5)
    assert pool.run(threading.get_ident, 5) != threading.get_ident()


def test_a_closed_pool_starts_nothing_and_leaves_no_thread(pool, eventually):
    """As when a call uses Redis while its registry is being closed."""
    from crm_guard.locks.workers import PoolBusy

    done = []
    assert pool.run(lambda: "in time", 5) == "in time"
    pool.submit(lambda: done.append("queued before"))
    pool.close()
    for use in (lambda job: pool.run(job, 0.01), pool.submit):
        with pytest.raises(PoolBusy):
            use(lambda: done.append("late"))
    pool.close()
    eventually(lambda: not threads_of_ours())
    assert done == ["queued before"]


def test_it_starts_no_more_threads_than_are_needed(pool, together):
    numbers = count()
    assert sorted(pool.run(lambda: next(numbers), 5) for _ in range(50)) == list(range(50))
    assert len(threads_of_ours()) == 1
    together(*[lambda: pool.run(lambda: next(numbers), 5)] * 50)
    assert len(threads_of_ours()) <= 2


def test_what_an_abandoned_job_has_read_is_not_kept(pool, eventually):
    class Reply:
        """A gigabyte, say."""

    go_on, read = threading.Event(), []

    def work():
        reply = Reply()
        read.append(weakref.ref(reply))
        go_on.wait(10)
        try:
            raise ConnectionResetError
        except OSError as error:
            raise redis.ConnectionError from error

    gc.disable()
    try:
        with pytest.raises(TimeoutError):
            pool.run(work, 0.01)
        go_on.set()
        eventually(lambda: pool.idle)
        assert read[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks only where there is a fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own_whatever_those_of_its_parent_were_doing(proxy, waiter_of):
    with closing(RedisLockRegistry(proxy.url, **{**QUICK, "socket_timeout": 0.5})) as registry:
        proxy.drips = (b"EVAL",)
        hanging = threading.Thread(target=registry.link.renew, args=([KEY],))
        hanging.start()
        assert proxy.dripped.wait(5)
        proxy.drips = ()
        child = os.fork()
        if not child:
            signal.alarm(5)
            waiter_of(registry)
            os._exit(0 if registry.link.up and registry.link.check() else 3)
        assert os.waitpid(child, 0)[1] == 0
        hanging.join()


# -- copies and pickles


def test_a_registry_made_from_a_client_says_why_it_cannot_be_pickled(server):
    with redis.Redis.from_url(server.url.replace("//", "//user:hunter2@"), retry=None) as client:
        registry = RedisLockRegistry(client, retry_after=60.0)
        for thing in (registry, GuardAdapter(lock_registry=registry)):
            with pytest.raises(TypeError, match=r"cannot be pickled: .* Make it from a redis:// URL") as caught:
                pickle.dumps(thing)
            assert "hunter2" not in str(caught.value)
        for other in (copy.copy(registry), copy.deepcopy(registry)):
            assert other is not registry
            assert other._client is client
            other.close()
        registry.close()


def test_a_pickle_keeps_the_longest_wait(lone):
    for other in (pickle.loads(pickle.dumps(lone)), copy.copy(lone)):  # noqa: S301
        with closing(other):
            assert other.wait_max == 5.0


def test_the_guard_tells_its_registry_how_long_its_waits_are():
    adapter = GuardAdapter(GuardSettings(lock_registry=NOWHERE, wait_max=7.5))
    with closing(adapter.locks):
        assert adapter.locks.wait_max == 7.5
        assert GuardAdapter(GuardSettings(lock_registry=NOWHERE, wait_max=7.5)).locks is adapter.locks
    other = GuardAdapter(GuardSettings(lock_registry=NOWHERE, wait_max=8.5)).locks
    with closing(other):
        assert other is not adapter.locks
