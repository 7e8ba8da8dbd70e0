"""A forked process goes on with nothing of its parent's: no connection, no mutex, no import that was under way.

Every fork happens in a process of its own, which runs a program from here.
"""

import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from requests.adapters import HTTPAdapter

from crm_guard import GuardAdapter, adapter

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class Handler(BaseHTTPRequestHandler):
    """Answers a write with the name that its path ends in, and the port that it came from.

    A name that begins with a 7 is locked the first time, one that begins with an 8 is refused.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.rpartition("/")[2]
        item = {"code": "SUCCESS", "status": "success", "message": "text", "details": {"id": name}}
        if name.startswith("7") and name not in self.server.seen:
            self.server.seen.add(name)
            item |= {"code": "RECORD_LOCKED", "status": "error"}
            item["details"]["action"] = "zia_vision_processing"
        if name.startswith("8"):
            item |= {"code": "NOT_APPROVED", "status": "error"}
        self.answer(200 if item["status"] == "success" else 400, {"data": [item], "port": self.client_address[1]})

    def do_GET(self):
        self.answer(200, {"data": [{"id": "80", "$approval_state": "zia_vision_rejected"}]})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.seen = True, set()
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


PREAMBLE = """
import json, os, signal, sys, threading, time
import requests
from requests.adapters import HTTPAdapter
import crm_guard
from crm_guard import GuardAdapter, mount_guard

URL, *ARGUMENTS = sys.argv[1:]
QUICK = {"wait_initial": 0.01, "wait_max": 0.02, "raise_on": "never"}


def put(session, name):
    return session.put(f"{URL}/crm/v8/Leads/{name}", json={"data": [{"Company": "Zylker"}]}, timeout=3)


def fork(job, leave=os._exit):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(into, json.dumps(job()).encode())
        leave(0)
    os.close(into)
    return child, out


def result(child, out, seconds=8):
    # Return what the job of a child returned.
    end = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "the child hangs"
        time.sleep(0.005)
    return json.loads(os.read(out, 10_000) or '"the child failed"')
"""


def run(program, *arguments):
    """Run a program that forks, and return what it prints, as JSON."""
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@FORKS
def test_parent_and_child_get_their_own_answers_by_their_own_connections(url):
    found = run(
        """
        class Own(HTTPAdapter):
            pass

        def by_hand(session):
            session.mount(URL, GuardAdapter())

        def over_a_stock_adapter(session):
            mount_guard(session, URL)

        def over_an_adapter_of_its_own(session):
            session.mount(URL, Own())
            mount_guard(session, URL)

        def over_one_of_the_callers(session):
            session.mount(URL, GuardAdapter(inner=Own()))

        def installed(session):
            session.mount(URL, Own())
            crm_guard.install(URL)

        def through_a_proxy(session):
            session.proxies["http"] = URL
            mount_guard(session, URL)

        ways = by_hand, over_a_stock_adapter, over_an_adapter_of_its_own, over_one_of_the_callers, installed
        found = {}
        for way in (*ways, through_a_proxy):
            session = requests.Session()
            way(session)
            put(session, "first")  # from here on a connection is idle
            wrong = shared = 0
            for number in range(4):
                wait, go = os.pipe()

                def send(name):
                    try:
                        answer = put(session, name).json()
                    except requests.RequestException:
                        return False, 0
                    return answer["data"][0]["details"]["id"] == name, answer["port"]

                child = fork(lambda: (os.read(wait, 1), send(f"child{number}"))[1])
                os.write(go, b"!")
                answers = [send(f"parent{number}"), result(*child)]
                wrong += sum(not right for right, _ in answers)
                shared += answers[0][1] == answers[1][1]
            found[way.__name__] = f"{wrong} wrong answers, {shared} connections shared"
        print(json.dumps(found))
        """,
        url,
    )
    assert len(found) == 6
    assert set(found.values()) == {"0 wrong answers, 0 connections shared"}, found


@FORKS
def test_a_child_lets_go_of_the_connections_that_it_does_not_use(url):
    """Else the server would not see that the parent closes them."""
    found = run(
        """
        session = requests.Session()
        guard = mount_guard(session, URL)
        put(session, "first")
        [pool] = guard.poolmanager.pools._container.values()
        [sock] = [connection.sock for connection in pool.pool.queue if connection]
        number = sock.fileno()

        def in_child():
            try:
                os.fstat(number)
            except OSError:
                return "closed"
            return "open"

        print(json.dumps([result(*fork(in_child)), put(session, "second").json()["port"] == sock.getsockname()[1]]))
        """,
        url,
    )
    assert found == ["closed", True], "the parent goes on using it"


@FORKS
def test_a_mutex_that_a_lost_thread_holds_stops_nobody(url):
    """Those of the pools, of what was learnt and of the hook; also when Python tidies up at the child's end."""
    found = run(
        """
        session = requests.Session()
        guard = mount_guard(session, URL, settings=QUICK)
        crm_guard.install(URL)
        put(session, "70"), put(session, "80")
        [pool] = guard.poolmanager.pools._container.values()
        mutexes = [guard.poolmanager.pools.lock, pool.pool.mutex, guard.context.scopes._mutex]
        mutexes += [guard.locks.mutex, crm_guard.mounting._hook._mutex]
        held, end = threading.Event(), threading.Event()

        def hold():
            for mutex in mutexes:
                mutex.acquire()
            held.set()
            end.wait()

        threading.Thread(target=hold, daemon=True).start()
        held.wait()

        def in_child():
            statuses = [put(session, name).status_code for name in ("71", "81")]
            crm_guard.install(URL, settings={"timeout": 1})
            return statuses

        print(json.dumps(result(*fork(in_child, leave=sys.exit))), flush=True)
        os._exit(0)
        """,
        url,
    )
    assert found == [200, 400]


@FORKS
def test_guards_of_a_child_share_what_they_shared_and_nothing_is_started(url):
    found = run(
        """
        from crm_guard.testing import ManualClock

        guard, other = GuardAdapter(), GuardAdapter()
        twin = guard.around(HTTPAdapter())
        clock = ManualClock()
        far = crm_guard.install(settings={"lock_registry": "redis://127.0.0.1:1/0"}, clock=clock).__enter__()
        before, registry = (guard.context.stops, guard.context.scopes), far.locks

        def in_child():
            after = guard.context.stops, guard.context.scopes
            return {
                "threads": threading.active_count(),
                "inherited": [old for old, new in zip(before, after) if old is new],
                "a twin shares all": (twin.context.stops, twin.context.scopes) == after,
                "a stranger does not": other.context.stops is not guard.context.stops,
                "and locks": guard.locks is other.locks is GuardAdapter().locks,
                "a registry sees to itself": far.locks is registry,
            }

        print(json.dumps(result(*fork(in_child))))
        """,
        url,
    )
    assert (found.pop("threads"), found.pop("inherited")) == (1, [])
    assert all(found.values()), found


@FORKS
@pytest.mark.parametrize("module", ["crm_guard._transport.driver", "backoff", "inspect"])
def test_an_import_that_is_under_way_does_not_hang_the_child(url, module):
    found = run(
        """
        begun = threading.Event()

        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name == ARGUMENTS[0] and not begun.is_set():
                    begun.set()
                    time.sleep(0.2)

        def call(name):
            with requests.Session() as session:
                retries = requests.packages.urllib3.Retry(1, status_forcelist=[503], allowed_methods=None)
                mount_guard(session, URL, settings=QUICK, max_retries=retries)  # warns
                return put(session, name).status_code

        put(requests.Session(), "first")  # what `requests` itself imports late is not ours to guard
        sys.modules.pop("inspect", None)
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=call, args=(f"7{ARGUMENTS[0]}1",))
        thread.start()
        begun.wait()
        found = result(*fork(lambda: call(f"7{ARGUMENTS[0]}2")))
        thread.join()
        print(json.dumps(found))
        """,
        url,
        module,
    )
    assert found == 200


class TestInThisProcess:
    """What a child does first."""

    @pytest.fixture
    def module(self):
        from crm_guard._transport import fork

        return fork

    def idle(self, made):
        """Return the idle connections of an adapter, and the mutex of their pool."""
        [pool] = made.poolmanager.pools._container.values()
        return [connection for connection in pool.pool.queue if connection], pool.pool.mutex

    def test_empties_pools_and_keeps_their_settings(self, module, url):
        class Special(GuardAdapter):
            """Makes its pool in its own way, which must not be asked for again."""

            def init_poolmanager(self, *args, **options):
                assert not hasattr(self, "poolmanager")
                super().init_poolmanager(*args, **options, socket_options=[], timeout=7)

        with requests.Session() as session:
            made = Special(pool_connections=3, pool_maxsize=4, pool_block=True)
            session.mount(url, made)
            session.put(f"{url}/crm/v8/Leads/1", json={})
            before, ([connection], mutex) = made.poolmanager, self.idle(made)
            sock = connection.sock
            mutex.acquire()  # as a thread may have at the fork
            module.renew_connections(made)
            assert sock.fileno() == -1
            after = made.poolmanager
            assert after is not before
            assert (after.connection_pool_kw, len(after.pools)) == (before.connection_pool_kw, 0)
            assert after.pools._maxsize == 3
            del before, connection
            gc.collect()  # urllib3 takes the mutex of a pool that goes
            assert session.put(f"{url}/crm/v8/Leads/1", json={}).ok

    def test_empties_those_of_proxies(self, module, url):
        with requests.Session() as session:
            session.mount("http://", GuardAdapter())
            session.proxies["http"] = url
            session.put("http://crm.example/crm/v8/Leads/1", json={})
            made = session.get_adapter(url)
            [before] = made.proxy_manager.values()
            assert len(before.pools) == 1
            module.renew_connections(made)
            [after] = made.proxy_manager.values()
            assert (after.proxy, len(after.pools)) == (before.proxy, 0)
            assert session.put("http://crm.example/crm/v8/Leads/1", json={}).ok

    def test_leaves_a_closed_pool_and_a_broken_connection_alone(self, module, url):
        with requests.Session() as session:
            session.mount(url, HTTPAdapter())
            made = session.get_adapter(url)
            session.put(f"{url}/crm/v8/Leads/1", json={})
            self.idle(made)[0][0].close()  # has no socket any more
            module.renew_connections(made)
            session.put(f"{url}/crm/v8/Leads/1", json={})
            [pool] = made.poolmanager.pools._container.values()
            pool.close()
            module.renew_connections(made)
            assert session.put(f"{url}/crm/v8/Leads/1", json={}).ok

    @pytest.mark.parametrize("inner", [object(), None, 3, type("Slots", (), {"__slots__": ()})()])
    def test_leaves_what_has_no_pool_alone(self, module, inner):
        module.remember(inner)
        assert not any(found is inner for found in module.remembered())
        module.renew_connections(inner)

    def test_knows_adapters_as_long_as_they_live(self, module):
        inner = HTTPAdapter()
        guard = GuardAdapter(inner=inner)
        twin = guard.around(HTTPAdapter())
        known = {id(guard), id(inner), id(twin), id(twin.inner)}
        assert known <= {id(found) for found in module.remembered()}
        del guard, inner, twin
        gc.collect()
        assert not known & {id(found) for found in module.remembered()}

    def test_has_twins_share_what_they_shared(self):
        guard = GuardAdapter()
        twin, other, before = guard.around(HTTPAdapter()), GuardAdapter(), guard.context
        adapter._renew_all()
        assert guard.context is twin.context is not other.context
        assert guard.context.scopes is not before.scopes
        assert guard.context.stops is not before.stops
