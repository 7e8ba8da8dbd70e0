"""A tap cuts the connection that is out, and never one that is back in its pool."""

import socket

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import EmptyPoolError

from crm_guard._transport.tap import Tap


class Wired:
    """A connection with a real socket."""

    def __init__(self):
        self.sock, self.far = socket.socketpair()
        self.closed = False

    def connect(self):
        self.connected = True

    def close(self):
        self.closed = True

    @property
    def cut(self):
        self.far.setblocking(False)
        try:
            return self.far.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def wired():
    connection = Wired()
    yield connection
    connection.sock.close()
    connection.far.close()


@pytest.fixture
def pool(wired):
    with HTTPConnectionPool("127.0.0.1", maxsize=1, block=True) as made:
        made._get_conn()
        made._put_conn(wired)
        wired.is_connected = True
        yield made
        while made.pool.qsize():
            made.pool.get()
        made.pool.put(None)


def test_it_cuts_what_is_out(wired, pool, monkeypatch):
    tap = Tap()
    view = tap.over(pool)
    monkeypatch.setattr("urllib3.connectionpool.is_connection_dropped", lambda _: False)
    assert view._get_conn() is wired
    tap.cut()
    assert wired.cut
    view._put_conn(wired)
    assert wired.closed
    assert pool.pool.queue == [None]  # an empty place, and no connection that is of no use


def test_it_leaves_alone_what_is_back(wired, pool, monkeypatch):
    tap = Tap()
    view = tap.over(pool)
    monkeypatch.setattr("urllib3.connectionpool.is_connection_dropped", lambda _: False)
    view._put_conn(view._get_conn())
    tap.cut()
    assert not wired.cut
    assert pool._get_conn() is wired


def test_it_lets_nothing_out_once_it_is_too_late(wired, pool, monkeypatch):
    tap = Tap()
    view = tap.over(pool)
    monkeypatch.setattr("urllib3.connectionpool.is_connection_dropped", lambda _: False)
    tap.cut()
    with pytest.raises(EmptyPoolError):
        view._get_conn()
    assert not wired.closed  # whoever had it before may still be about to close its own answer
    assert pool.pool.queue == [wired]


def test_it_ends_what_connects_when_it_is_too_late(wired, pool, monkeypatch):
    tap = Tap()
    view = tap.over(pool)
    monkeypatch.setattr("urllib3.connectionpool.is_connection_dropped", lambda _: False)
    connection = view._get_conn()
    connection.connect()
    tap.cut()
    with pytest.raises(TimeoutError):
        connection.connect()
    view._put_conn(connection)
    connection.connect()  # back, it is as it was


def test_a_pool_of_another_make_is_used_as_it_is():
    other = object()
    assert Tap().over(other) is other
