"""P4: closing a session ends no call; `stop_waiting()` ends every wait at once, also inside a signal handler."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import pytest
import requests
from requests.adapters import HTTPAdapter

import crm_guard
from crm_guard import GiveUpReason, GuardAdapter, GuardSettings, RecordLockedError, clock, get_report
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.simulator import Simulator

ROW = {"data": [{"Company": "Zylker"}]}
QUICK = GuardSettings(wait_initial=0.05, wait_max=0.1, timeout=15.0)
PATIENT = GuardSettings(wait_initial=60.0, wait_max=60.0, timeout=90.0, share_locks=False)


@pytest.fixture
def real_crm():
    """A simulated CRM in real time."""
    with Simulator() as crm:
        yield crm


class Waiting:
    """A call in a thread of its own, on a record that stays locked; `begun` is set once it waits."""

    def __init__(self, crm, settings=PATIENT, adapter=None):
        self.begun, self.caught = threading.Event(), []
        self.adapter = adapter or GuardAdapter(settings, hooks=[self.hear])
        self.url = f"{crm.url}/crm/v8/Leads/{crm.add_record('Leads', state='zia_vision_validation')}"
        self.thread = threading.Thread(target=self.call, daemon=True)
        self.thread.start()
        assert self.begun.wait(10)

    def hear(self, event):
        if event.kind == "waiting":
            self.begun.set()

    def call(self):
        with requests.Session() as session:
            session.mount("http://", self.adapter)
            try:
                session.put(self.url, json=ROW)
            except RecordLockedError as error:
                self.caught.append(error)

    def result(self):
        self.thread.join(10)
        assert not self.thread.is_alive(), "the wait did not end"
        return self.caught[0]


class TestClosing:
    def test_fifty_sessions_that_share_a_guard_lose_nothing_to_each_others_end(self, real_crm, together):
        adapter = GuardAdapter(QUICK, pool_maxsize=50)
        lead = real_crm.add_record("Leads", locked_for=0.6)

        def write():
            with requests.Session() as session:
                session.mount(real_crm.url, adapter)
                return session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code

        assert together([write] * 50) == [200] * 50
        assert real_crm.writes(lead) == 50

    def test_nor_do_twenty_batches(self, real_crm, together):
        adapter = GuardAdapter(QUICK, pool_maxsize=20)
        free = [real_crm.add_record("Leads") for _ in range(90)]
        locked = [real_crm.add_record("Leads", locked_for=0.1 + number / 20) for number in range(10)]
        rows = {"data": [{"id": lead, "Company": "Zylker"} for lead in (*locked, *free)]}

        def write():
            with requests.Session() as session:
                session.mount(real_crm.url, adapter)
                response = session.put(f"{real_crm.url}/crm/v8/Leads", json=rows)
                return response.status_code, len(get_report(response).blocked)

        assert together([write] * 20) == [(200, 0)] * 20
        assert set(real_crm.write_counts.values()) == {20}

    def test_drops_idle_connections(self, real_crm):
        adapter = GuardAdapter(QUICK)
        url = f"{real_crm.url}/crm/v8/Leads/{real_crm.add_record('Leads')}"
        with requests.Session() as session:
            session.mount("http://", adapter)
            session.put(url, json=ROW)
            pools = adapter.poolmanager.pools
            idle = [found for key in pools.keys() for found in pools[key].pool.queue if found]  # noqa: SIM118
            socks = [connection.sock for connection in idle]
            assert [sock.fileno() >= 0 for sock in socks] == [True]
        assert [sock.fileno() for sock in socks] == [-1]
        with requests.Session() as session:
            session.mount("http://", adapter)
            assert session.put(url, json=ROW).ok, "the adapter stays usable"

    def test_leaves_the_lock_registry_alone(self):
        closed = []

        class Registry(MemoryLockRegistry):
            def close(self):
                closed.append(self)

        GuardAdapter(QUICK, lock_registry=Registry()).close()
        adapter = GuardAdapter(QUICK)
        adapter.context = replace(adapter.context, locks=Registry())  # as one that the settings made
        adapter.close()
        assert not closed


class TestStopping:
    def test_ends_the_waits_of_that_adapter_alone(self, real_crm):
        stopped, other = Waiting(real_crm), Waiting(real_crm)
        stopped.adapter.stop_waiting()
        error = stopped.result()
        assert error.reason is GiveUpReason.STOPPED
        assert "`stop_waiting()` ended the wait" in str(error)
        assert error.remaining_request() is not None
        assert other.thread.is_alive()
        other.adapter.stop_waiting()
        other.result()

    def test_the_module_function_ends_those_of_every_guard(self, real_crm):
        calls = [Waiting(real_crm) for _ in range(3)]
        crm_guard.stop_waiting()
        assert [call.result().reason for call in calls] == [GiveUpReason.STOPPED] * 3

    def test_reaches_the_guards_of_other_inner_adapters(self, real_crm):
        adapter = GuardAdapter(PATIENT)
        call = Waiting.__new__(Waiting)
        call.begun = threading.Event()
        adapter.context = replace(adapter.context, hooks=(call.hear,))
        call.__init__(real_crm, adapter=adapter.around(HTTPAdapter()))
        adapter.stop_waiting()
        assert call.result().reason is GiveUpReason.STOPPED

    def test_keeps_what_a_batch_has_already(self, crm, guard, leads, events, clock):
        session = guard()
        ids = [crm.add_record("Leads"), crm.add_record("Leads", state="zia_vision_validation")]
        clock.during_wait = session.guard.stop_waiting
        response = session.put(leads, json={"data": [{"id": lead, "Company": "Z"} for lead in ids]})
        report = get_report(response)
        assert (response.status_code, report.reason, report.attempts) == (207, GiveUpReason.STOPPED, 1)
        assert [outcome.succeeded for outcome in report.outcomes] == [True, False]
        assert (events[-1].kind, events[-1].reason) == ("gave_up", GiveUpReason.STOPPED)

    def test_later_calls_wait_again(self, crm, guard, leads):
        session = guard()
        session.guard.stop_waiting()
        crm_guard.stop_waiting()
        lead = crm.add_record("Leads", locked_for=2.0)
        assert session.put(f"{leads}/{lead}", json=ROW).ok
        assert crm.writes(lead) == 1

    def test_a_call_whose_first_send_is_under_way_does_not_begin_to_wait(self, crm, leads, clock):
        class Stopping(HTTPAdapter):
            def send(self, request, **options):
                response = super().send(request, **options)
                guard.stop_waiting()
                return response

        guard = GuardAdapter(QUICK, clock=clock, inner=Stopping())
        lead = crm.add_record("Leads", state="zia_vision_validation")
        with requests.Session() as session:
            session.mount("http://", guard)
            with pytest.raises(RecordLockedError) as caught:
                session.put(f"{leads}/{lead}", json=ROW)
        assert (caught.value.reason, clock.waits) == (GiveUpReason.STOPPED, [])
        guard.inner.close()

    def test_a_call_that_waits_before_its_first_send_is_sent_once(self, real_crm):
        adapter = GuardAdapter(GuardSettings(wait_initial=60.0, wait_max=60.0, timeout=90.0))
        first = Waiting.__new__(Waiting)
        first.begun = threading.Event()
        adapter.context = replace(adapter.context, hooks=(first.hear,))
        first.__init__(real_crm, adapter=adapter)
        asleep = threading.Event()
        early = ("waiting", 0)
        hook = lambda event: asleep.set() if (event.kind, event.attempt) == early else None  # noqa: E731
        adapter.context = replace(adapter.context, hooks=(hook,))
        second = Waiting.__new__(Waiting)
        second.begun, second.caught, second.adapter, second.url = asleep, [], adapter, first.url
        second.thread = threading.Thread(target=second.call, daemon=True)
        second.thread.start()
        assert asleep.wait(10)
        assert len(real_crm.calls) == 1
        adapter.stop_waiting()
        assert first.result().reason is GiveUpReason.STOPPED
        error = second.result()
        assert (error.reason, error.report.attempts) == (GiveUpReason.STOPPED, 1)
        assert len(real_crm.calls) == 2

    def test_ends_the_wait_of_the_thread_that_the_signal_handler_interrupts(self, real_crm):
        adapter = GuardAdapter(PATIENT)
        before = signal.signal(signal.SIGALRM, lambda *_: crm_guard.stop_waiting())
        try:
            with requests.Session() as session:
                session.mount("http://", adapter)
                lead = real_crm.add_record("Leads", state="zia_vision_validation")
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(RecordLockedError) as caught:
                    session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert caught.value.reason is GiveUpReason.STOPPED

    def test_no_instant_of_a_guarded_call_is_a_bad_one_for_the_signal(self, real_crm):
        """A handler that took a lock would meet it held by the thread that it interrupts, and hang."""
        adapter = GuardAdapter(GuardSettings(wait_initial=0.002, wait_max=0.002, timeout=5.0))
        lead = real_crm.add_record("Leads", state="zia_vision_validation")
        fired, reasons = [], set()
        before = signal.signal(signal.SIGALRM, lambda *_: (fired.append(1), adapter.stop_waiting()))
        try:
            with requests.Session() as session:
                session.mount("http://", adapter)
                signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
                while len(fired) < 400:
                    with pytest.raises(RecordLockedError) as caught:
                        session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW)
                    reasons.add(caught.value.reason)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert reasons == {GiveUpReason.STOPPED}
        assert not adapter.locks or not adapter.locks.knows([f"{real_crm.url}|{lead}"]), "nothing is left behind"

    def test_a_process_that_is_asked_to_end_returns_what_it_has(self, real_crm):
        program = textwrap.dedent("""
            import signal, sys, threading
            import requests
            import crm_guard

            signal.signal(signal.SIGTERM, lambda *_: crm_guard.stop_waiting())
            settings = {"wait_initial": 60, "wait_max": 60, "timeout": 90}

            def write():
                with requests.Session() as session:
                    crm_guard.mount_guard(session, sys.argv[1], settings=settings, hooks=[tell])
                    try:
                        session.put(sys.argv[1] + "/crm/v8/Leads/" + sys.argv[2], json={"data": [{}]})
                    except crm_guard.RecordLockedError as error:
                        say(error.reason)

            def tell(event):
                if event.kind == "waiting":
                    say("waiting")

            def say(word):
                sys.stdout.write(word + "\\n")
                sys.stdout.flush()

            threads = [threading.Thread(target=write) for _ in range(2)]
            for thread in threads:
                thread.start()
            write()
            for thread in threads:
                thread.join()
        """)
        lead = real_crm.add_record("Leads", state="zia_vision_validation")
        command = [sys.executable, "-c", program, real_crm.url, lead]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                for _ in range(3):
                    assert process.stdout.readline() == "waiting\n"
                process.send_signal(signal.SIGTERM)
                said, _ = process.communicate(timeout=15)
            finally:
                process.kill()
        assert sorted(said.split()) == ["stopped"] * 3
        assert process.returncode == 0


@pytest.fixture
def for_good():
    yield
    clock._process.ends = False


@pytest.mark.usefixtures("for_good")
class TestForGood:
    def test_calls_that_begin_later_are_sent_once_and_do_not_wait(self, real_crm):
        call = Waiting(real_crm)
        crm_guard.stop_waiting(for_good=True)
        assert call.result().reason is GiveUpReason.STOPPED
        lead = real_crm.add_record("Leads", refusals=1)
        with requests.Session() as session:
            session.mount("http://", call.adapter)
            with pytest.raises(RecordLockedError) as caught:
                session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW)
            assert (caught.value.reason, real_crm.refusals(lead)) == (GiveUpReason.STOPPED, 1)
            assert session.send(caught.value.remaining_request()).ok, "a call without a lock is as ever"
        assert real_crm.writes(lead) == 1

    def test_guards_that_are_made_later_do_not_wait_either(self, real_crm):
        crm_guard.stop_waiting(for_good=True)
        lead = real_crm.add_record("Leads", refusals=1)
        with requests.Session() as session:
            crm_guard.mount_guard(session, real_crm.url)
            with pytest.raises(RecordLockedError) as caught:
                session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW)
        assert caught.value.reason is GiveUpReason.STOPPED

    def test_a_record_that_is_known_to_be_locked_is_asked_about_once(self, real_crm):
        registry = MemoryLockRegistry()
        lead = real_crm.add_record("Leads", locked_for=1000)
        other = registry.waiter(WaitContext(clock.SystemClock(), clock.Wake(), lambda: False))
        other.verdict(locked=[f"{real_crm.url}|{lead}"], free=())
        adapter = GuardAdapter(PATIENT, lock_registry=registry)
        adapter.stop_waiting(for_good=True)
        with requests.Session() as session:
            session.mount("http://", adapter)
            with pytest.raises(RecordLockedError) as caught:
                session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW)
        assert (caught.value.reason, real_crm.refusals(lead)) == (GiveUpReason.STOPPED, 1)

    def test_a_writer_that_begins_later_sends_nothing(self, real_crm):
        crm_guard.stop_waiting(for_good=True)
        lead = real_crm.add_record("Leads")
        with requests.Session() as session:
            rows = [{"id": lead, "Company": "Zylker"}]
            writer = crm_guard.write_records(session, "PUT", f"{real_crm.url}/crm/v8/Leads", rows, settings=QUICK)
            with pytest.raises(crm_guard.GuardError) as caught:
                list(writer)
        assert caught.value.report.reason is GiveUpReason.STOPPED
        assert not real_crm.calls

    def test_of_one_adapter_leaves_the_others_alone(self, real_crm):
        call, other = Waiting(real_crm), Waiting(real_crm)
        call.adapter.stop_waiting(for_good=True)
        assert call.result().reason is GiveUpReason.STOPPED
        assert not other.caught
        lead = real_crm.add_record("Leads", refusals=1)
        with requests.Session() as session:
            session.mount("http://", call.adapter)
            with pytest.raises(RecordLockedError):
                session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW)
        other.adapter.stop_waiting()
        assert other.result().reason is GiveUpReason.STOPPED

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_process_waits_again(self, real_crm):
        adapter = GuardAdapter(QUICK)
        crm_guard.stop_waiting(for_good=True)
        lead = real_crm.add_record("Leads", refusals=2)
        pid = os.fork()
        if not pid:
            with requests.Session() as session:
                session.mount("http://", adapter)
                done = session.put(f"{real_crm.url}/crm/v8/Leads/{lead}", json=ROW).ok
            os._exit(0 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert real_crm.writes(lead) == 1
