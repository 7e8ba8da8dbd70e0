"""Waits that end when they should, and at once when they are stopped."""

import gc
import signal
import threading
import time

from crm_guard import clock as _clock
from crm_guard.clock import Stops, SystemClock, Wake, stop_waiting


class TestTheSystemClock:
    def test_does_not_go_back(self):
        clock = SystemClock()
        instants = [clock.now() for _ in range(100)]
        assert instants == sorted(instants)
        assert abs(clock.now() - time.monotonic()) < 1

    def test_waits_until_the_event_is_set_and_returns_true(self):
        event, ready, clock, results = Wake(), threading.Event(), SystemClock(), []

        def wait():
            ready.set()
            results.append(clock.wait(event, 30))

        thread = threading.Thread(target=wait)
        thread.start()
        assert ready.wait(10)
        event.set()
        thread.join(10)
        assert results == [True]

    def test_waits_no_longer_than_told(self):
        clock = SystemClock()
        started = clock.now()
        assert clock.wait(Wake(), 0.02) is False
        assert 0.02 <= clock.now() - started < 5
        assert clock.wait(Wake(), 0) is False


class TestAWake:
    def test_stays_set_until_it_is_cleared(self):
        wake = Wake()
        assert not wake.is_set()
        wake.set()
        wake.set()
        assert wake.is_set()
        assert wake.wait(0)
        assert wake.wait(30), "a wait does not use it up"
        wake.clear()
        assert not wake.is_set()
        assert not wake.wait(0)

    def test_may_be_set_by_a_signal_handler_that_interrupts_any_part_of_it(self):
        """With `threading.Event` this hangs sooner or later: its lock is held by the interrupted thread itself."""
        wake, fired = Wake(), []

        def handler(*_):
            fired.append(True)
            wake.set()

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            for _ in range(3_000):
                wake.clear()
                wake.set()
                assert wake.wait(5)
                wake.clear()
                assert wake.wait(5), "the handler sets it"
                if len(fired) > 300:
                    break
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(fired) > 300

    def test_notices_a_signal_that_did_not_interrupt_its_sleep(self):
        """So it is with one that arrives in the microsecond before the main thread falls asleep."""
        wake, clock = Wake(), SystemClock()
        before = signal.signal(signal.SIGUSR1, lambda *_: wake.set())
        try:
            started = clock.now()
            elsewhere = threading.Timer(0.05, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
            elsewhere.start()
            assert wake.wait(20)
            assert clock.now() - started < 10
            elsewhere.join(10)
        finally:
            signal.signal(signal.SIGUSR1, before)


class TestStops:
    def test_stopping_wakes_all_who_wait(self):
        stops, barrier, woken = Stops(), threading.Barrier(5), []

        def wait():
            wake, token = Wake(), stops.token
            stops.watch(wake, token)
            barrier.wait(10)
            woken.append(wake.wait(30) and stops.token is not token)

        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        barrier.wait(10)
        stops.stop()
        for thread in threads:
            thread.join(10)
        assert woken == [True] * 4

    def test_a_wait_that_begins_after_the_stop_of_its_call_does_not_begin(self):
        stops, wake = Stops(), Wake()
        token = stops.token
        stops.stop()
        stops.watch(wake, token)
        assert wake.is_set()
        assert stops.token is not token

    def test_a_call_after_the_stop_waits_as_ever(self):
        stops, wake = Stops(), Wake()
        stops.stop()
        token = stops.token
        stops.watch(wake, token)
        assert not wake.is_set()
        assert stops.token is token
        stops.stop()
        assert wake.is_set()

    def test_what_is_not_watched_any_more_is_left_alone(self):
        stops, wake = Stops(), Wake()
        stops.watch(wake, stops.token)
        stops.unwatch(wake)
        stops.unwatch(wake)
        stops.stop()
        assert not wake.is_set()

    def test_one_call_stops_the_waits_of_all_that_still_exist(self):
        kept, gone, wakes = Stops(), Stops(), [Wake(), Wake()]
        kept.watch(wakes[0], kept.token)
        gone.watch(wakes[1], gone.token)
        del gone
        gc.collect()
        stop_waiting()
        assert [wake.is_set() for wake in wakes] == [True, False]

    def test_what_is_gone_is_forgotten(self):
        gc.collect()
        before = len(_clock._everywhere)
        for _ in range(100):
            Stops()
        gc.collect()
        assert len(_clock._everywhere) == before
