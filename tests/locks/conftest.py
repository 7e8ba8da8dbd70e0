"""A real `redis-server`, and the smallest CRM that can hold a lock."""

import os
import shutil
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager

import pytest
import redis

from crm_guard.clock import SystemClock
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.locks.redis import RedisLockRegistry

QUICK = {"lease": 0.3, "poll": 0.1, "retry_after": 0.2}


class Crm:
    """Records that are locked for some seconds, or until unlocked. Answers at once, and counts."""

    def __init__(self):
        self.mutex = threading.Lock()
        self.unlocks = {}
        self.calls, self.writes = 0, []

    def lock(self, *keys, seconds=None):
        until = float("inf") if seconds is None else SystemClock().now() + seconds
        self.unlocks.update(dict.fromkeys(keys, until))

    def unlock(self, *keys):
        self.lock(*keys, seconds=0)

    def send(self, name, keys):
        with self.mutex:
            self.calls += 1
            locked = {key for key in keys if self.unlocks.get(key, 0) > SystemClock().now()}
            self.writes += [(name, key) for key in set(keys) - locked]
        return locked


def one_call(registry, crm, name, keys, *, delay=0.03, timeout=20.0, send=None):
    """One call as the adapter makes it; return the keys that were never written."""
    clock = SystemClock()
    waiter = registry.waiter(WaitContext(clock, threading.Event(), lambda: False))
    pending, deadline = set(keys), clock.now() + timeout
    try:
        if registry and registry.knows(pending):
            waiter.wait(pending, delay, deadline)
        going = frozenset(pending)
        while going:
            locked = (send or crm.send)(name, going)
            waiter.verdict(locked=locked, free=going - locked)
            pending -= going - locked
            going = waiter.wait(pending, delay, deadline) if pending else frozenset()
    finally:
        waiter.leave()
    return pending


def all_at_once(*jobs):
    """Run every job in its own thread, from one starting line; return their results."""
    start, results, errors = threading.Barrier(len(jobs)), [None] * len(jobs), []

    def run(number, job):
        try:
            start.wait(10)
            results[number] = job()
        except Exception as error:  # noqa: BLE001 - shown by the thread that asserts
            errors.append(error)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads), "a call never came back"
    return results


class RedisServer:
    """A `redis-server` of our own, on a free port of the loopback, without persistence."""

    def __init__(self, folder, *arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.arguments = folder, arguments
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly no --dir {self.folder} --loglevel warning"
        self.process = subprocess.Popen(
            [shutil.which("redis-server"), *options.split(), "--save", "", *self.arguments],
            stdout=subprocess.DEVNULL,
        )
        clock, nothing = SystemClock(), threading.Event()
        with redis.Redis.from_url(self.url) as client:
            for _ in range(500):
                try:
                    client.ping()
                except redis.ConnectionError:
                    clock.wait(nothing, 0.01)
                else:
                    return
        message = f"redis-server did not answer on port {self.port}"
        raise RuntimeError(message)

    def stop(self):
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(folder, *arguments):
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is missing: CI must install it")
        pytest.skip("needs redis-server: apt-get install redis-server")
    server = RedisServer(folder, *arguments)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_registry(server, request):
    """A function that makes registries of one Redis, as other processes would."""
    made = []

    def make(**options):
        prefix = f"test:{request.node.name}:"
        made.append(RedisLockRegistry(server.url, **{"prefix": prefix, **QUICK, **options}))
        return made[-1]

    yield make
    for registry in made:
        registry.close()


@pytest.fixture(params=["memory", "redis"])
def make_registry(request):
    """A function that makes the registry under contract."""
    if request.param == "memory":
        return MemoryLockRegistry
    return request.getfixturevalue("redis_registry")


@pytest.fixture
def crm():
    return Crm()


@pytest.fixture
def call():
    return one_call


@pytest.fixture
def together():
    return all_at_once


class RecordingClock(SystemClock):
    """The real clock, which records that somebody sleeps."""

    def __init__(self):
        self.slept = threading.Event()

    def wait(self, event, timeout):
        if timeout > 0:
            self.slept.set()
        return super().wait(event, timeout)


@pytest.fixture
def waiter_of():
    """A function that makes a waiter on the real clock.

    `interrupt()` ends its wait, `asleep()` returns once it has begun to sleep.
    """

    def make(registry):
        wake, interrupted = threading.Event(), threading.Event()
        clock = RecordingClock()
        waiter = registry.waiter(WaitContext(clock, wake, interrupted.is_set))

        def interrupt():
            interrupted.set()
            wake.set()

        waiter.wake, waiter.interrupt, waiter.asleep = wake, interrupt, lambda: clock.slept.wait(10)
        return waiter

    return make


@pytest.fixture
def soon():
    """An instant farther away than any test may last: a call that comes back only then is lost."""
    return SystemClock().now() + 90


@pytest.fixture
def eventually():
    """A function that waits for what another thread or process is about to make true."""
    clock, nothing = SystemClock(), threading.Event()

    def wait_for(holds):
        for _ in range(2000):
            if holds():
                return
            clock.wait(nothing, 0.005)
        pytest.fail("it never came true")

    return wait_for


@pytest.fixture
def redis_server_of_its_own(tmp_path):
    """A function that starts a server which a test may stop, starve or freeze."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(redis_server(tmp_path, *arguments))
