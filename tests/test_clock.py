"""Waits that end when they should, and at once when the adapter is closed."""

import threading
import time

from crm_guard._clock import Interrupts, SystemClock


class TestTheSystemClock:
    def test_does_not_go_back(self):
        clock = SystemClock()
        instants = [clock.now() for _ in range(100)]
        assert instants == sorted(instants)
        assert abs(clock.now() - time.monotonic()) < 1

    def test_waits_until_the_event_is_set_and_tells_so(self):
        event, ready, clock, told = threading.Event(), threading.Event(), SystemClock(), []

        def wait():
            ready.set()
            told.append(clock.wait(event, 30))

        thread = threading.Thread(target=wait)
        thread.start()
        assert ready.wait(10)
        event.set()
        thread.join(10)
        assert told == [True]

    def test_waits_no_longer_than_told(self):
        clock = SystemClock()
        started = clock.now()
        assert clock.wait(threading.Event(), 0.02) is False
        assert 0.02 <= clock.now() - started < 5
        assert clock.wait(threading.Event(), 0) is False


class TestInterrupts:
    def test_closing_wakes_all_who_wait(self):
        interrupts, barrier, woken = Interrupts(), threading.Barrier(5), []

        def wait():
            event, ticket = threading.Event(), interrupts.ticket()
            interrupts.watch(event, ticket)
            barrier.wait(10)
            woken.append(event.wait(30) and interrupts.closed_since(ticket))

        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        barrier.wait(10)
        interrupts.close()
        for thread in threads:
            thread.join(10)
        assert woken == [True] * 4

    def test_a_wait_that_begins_after_the_closing_of_its_call_does_not_begin(self):
        interrupts, event = Interrupts(), threading.Event()
        ticket = interrupts.ticket()
        interrupts.close()
        interrupts.watch(event, ticket)
        assert event.is_set()
        assert interrupts.closed_since(ticket)

    def test_a_call_after_the_closing_waits_as_ever(self):
        interrupts, event = Interrupts(), threading.Event()
        interrupts.close()
        ticket = interrupts.ticket()
        interrupts.watch(event, ticket)
        assert not event.is_set()
        assert not interrupts.closed_since(ticket)
        interrupts.close()
        assert event.is_set()

    def test_what_is_not_watched_any_more_is_left_alone(self):
        interrupts, event = Interrupts(), threading.Event()
        interrupts.watch(event, interrupts.ticket())
        interrupts.unwatch(event)
        interrupts.unwatch(event)
        interrupts.close()
        assert not event.is_set()

    def test_closing_twice_is_closing(self):
        interrupts = Interrupts()
        ticket = interrupts.ticket()
        interrupts.close()
        interrupts.close()
        assert interrupts.closed_since(ticket)
