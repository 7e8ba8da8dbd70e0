"""The rules of sharing, one by one, with time moved by hand."""

import pytest

from crm_guard.locks.lock import Asker
from crm_guard.locks.table import LockTable

A, B, C, D = "o|A", "o|B", "o|C", "o|D"


class Bell:
    """An event that only counts."""

    def __init__(self):
        self.rung = 0

    def set(self):
        self.rung += 1


class Desk:
    """A table and its clock; calls are known by their names."""

    def __init__(self, wake_at_once=10, max_records=100, verdict_timeout=30.0):
        self.table, self.now, self.calls = LockTable(wake_at_once, max_records, verdict_timeout), 0.0, {}

    def __getitem__(self, name):
        if name not in self.calls:
            self.calls[name] = self.table.join(Bell())
        return self.calls[name]

    def refused(self, name, *keys, delay=10.0, retry_after=0.0):
        self.table.verdict(self[name], keys, (), self.now, retry_after)
        self.table.enrol(self[name], keys, delay, self.now)

    def joins(self, name, *keys, delay=10.0):
        self.table.enrol(self[name], keys, delay, self.now)

    def accepted(self, name, *keys):
        self.table.verdict(self[name], (), keys, self.now)
        self.table.leave(self[name], self.now)

    def goes(self, name, at=None):
        self.now = self.now if at is None else at
        keys, again = self.table.step(self[name], self.now)
        if keys:
            return "".join(sorted(key[-1] for key in keys))
        assert again > self.now, "it would spin"
        return None

    def due(self, name):
        return round(self[name].due, 3)

    def leader(self, key):
        return next((name for name, call in self.calls.items() if call is self.table.locks[key].leader), None)


@pytest.fixture
def desk():
    return Desk()


class TestWhenACallAsks:
    def test_a_lone_call_after_its_own_delay(self, desk):
        desk.refused("1", A)
        assert [desk.goes("1", 9.999), desk.goes("1", 10.0)] == [None, "A"]

    def test_the_more_calls_need_a_record_the_sooner_one_of_them(self, desk):
        for number, due in enumerate([10.0, 7.071, 5.774, 5.0], start=1):
            desk.refused(str(number), A)
            assert desk.due("1") == due
        assert desk["1"].wake.rung == 3, "it sleeps too long otherwise"
        assert [desk.goes(name, 5.0) for name in "4321"] == [None, None, None, "A"]

    def test_never_more_often_than_every_half_second(self, desk):
        for number in range(1000):
            desk.refused(str(number), A, delay=2.0)
        assert [desk.goes("0", 0.499), desk.goes("0", 0.501)] == [None, "A"]

    def test_a_batch_counts_as_one_call_however_many_records_it_needs(self, desk):
        desk.refused("1", A)
        desk.refused("2", A, B, C, D)
        assert desk.due("1") == round(10 / 1.25**0.5, 3)

    def test_a_newcomer_to_a_record_that_nobody_asked_about_for_long_waits_little(self, desk):
        desk.refused("1", A)
        desk.now = 9.0
        desk.joins("2", A)
        assert desk["1"].wake.rung == 1
        assert desk.goes("1") == "A"

    def test_a_newcomer_that_would_ask_sooner_leads(self, desk):
        desk.refused("1", A, delay=100.0)
        desk.now = 1.0
        desk.refused("2", A, delay=2.0)
        assert desk.leader(A) == "2"
        assert [desk.goes("1", 2.5), desk.goes("2", 2.5)] == [None, "A"]

    def test_not_before_the_instant_that_crm_asked_for_though_many_wait(self, desk):
        for number in range(9):
            desk.refused(str(number), A, delay=20.0, retry_after=20.0)
        assert (desk.goes("0", 6.7), desk.due("0")) == (None, 20.0)
        assert [desk.goes("0", 19.9), desk.goes("0", 20.0)] == [None, "A"]

    def test_what_crm_asked_for_ends_with_the_lock(self, desk):
        desk.refused("1", A, retry_after=60.0)
        desk.refused("2", A)
        desk.now = 1.0
        desk.accepted("1", A)
        desk.refused("2", A)
        assert [desk.goes("2", 10.9), desk.goes("2", 11.0)] == [None, "A"]

    def test_what_crm_asked_for_one_record_does_not_hold_back_another(self, desk):
        desk.refused("1", A, delay=20.0, retry_after=20.0)
        desk.refused("2", A, B, delay=5.0)
        assert desk.goes("2", 5.0) == "B"


class TestWhoAsks:
    def test_one_and_the_others_follow(self, desk):
        for name in "1234":
            desk.refused(name, A)
        assert [desk.goes(name, 5.0) for name in "4321"] == [None, None, None, "A"]
        assert [desk.goes(name, 5.1) for name in "234"] == [None] * 3
        desk.accepted("1", A)
        assert [desk.goes(name) for name in "234"] == ["A"] * 3

    def test_another_after_each_refusal_so_that_nobody_spends_all_its_attempts(self, desk):
        asked = []
        for name in "1234":
            desk.refused(name, A)
        for _ in range(8):
            name = desk.leader(A)
            asked.append(name)
            assert desk.goes(name, desk[name].due) == "A"
            desk.refused(name, A)
        assert asked == list("12341234")

    def test_the_next_one_is_woken(self, desk):
        for name in "12":
            desk.refused(name, A)
        assert desk.goes("2", 0.1) is None
        desk.goes("1", desk["1"].due)
        desk.refused("1", A)
        assert (desk.leader(A), desk["2"].wake.rung) == ("2", 1)

    def test_another_when_the_leader_does_not_look_for_long_after_its_due_instant(self, desk):
        desk.refused("1", A, delay=100.0)
        desk.refused("2", A, delay=105.0)
        due = desk["1"].due
        assert desk.goes("2", 69.0) is None, "30 s after the refusal it only waits"
        assert [desk.goes("2", due + 29.9), desk.goes("2", due + 30.1)] == [None, "A"]

    def test_another_when_nobody_has_asked_for_three_of_its_delays(self, desk):
        """As when the next in turn waits much longer than it."""
        desk.refused("1", A, delay=300.0)
        desk.refused("2", A, delay=1.0)
        desk.refused("3", A, delay=1.0)
        assert desk.leader(A) == "2"
        desk.table.leave(desk["2"], 0.5)
        assert desk.leader(A) == "1"
        assert [desk.goes("3", 2.9), desk.goes("3", 3.1)] == [None, "A"]

    def test_another_when_the_leader_is_busy_though_it_was_asking_when_the_other_looked(self, desk):
        desk.refused("1", A, delay=2.0)
        desk.refused("2", A, delay=1.0)
        desk.refused("3", A, delay=1.0)
        asking = desk.leader(A)
        assert desk.goes(asking, 1.0) == "A"
        assert desk.goes("3") is None, "an answer is under way"
        desk.table.verdict(desk[asking], [A], (), 1.2)
        desk.table.locks[A].leader = desk["1"]
        desk["1"].due = 1000.0
        assert desk["3"].looks_at <= 1.0 + 3.0
        assert [desk.goes("3", 4.1), desk.goes("3", 4.3)] == [None, "A"]

    def test_another_when_the_leader_goes_for_a_record_of_its_own(self, desk):
        desk.refused("1", A, retry_after=50.0)
        desk.refused("1", A, B)
        desk.refused("2", A)
        desk.table.verdict(desk["x"], (), [B], 1.0)
        assert desk.leader(A) == "1"
        assert desk.goes("1", 30.0) == "B"
        assert desk.leader(A) == "2"

    def test_nobody_when_the_leader_is_lost_while_crm_does_not_want_to_be_asked(self, desk):
        desk.refused("1", A, retry_after=100.0)
        desk.refused("2", A)
        assert [desk.goes("2", 38.0), desk.goes("2", 59.0)] == [None, None], "a minute counts, and no more"
        assert "A" in {desk.goes("2", 60.0), desk.goes("2", 91.0)}

    def test_another_at_once_when_the_one_that_asks_leaves_without_an_answer(self, desk):
        for name in "12":
            desk.refused(name, A)
        assert desk.goes("1", 9.0) == "A"
        desk.table.leave(desk["1"], 9.5)
        assert desk.table.locks[A].asker is None
        assert desk.goes("2", desk["2"].due) == "A"

    def test_one_that_had_no_answer_about_a_record_may_ask_again_itself(self, desk):
        desk.refused("1", A, B)
        assert desk.goes("1", 10.0) == "AB"
        desk.table.verdict(desk["1"], [A], [], 10.0)
        desk.joins("1", A, B)
        assert desk.goes("1", 20.1) == "AB"

    def test_a_refusal_to_a_newcomer_ends_no_others_question(self, desk):
        for name in "12":
            desk.refused(name, A)
        assert desk.goes("1", 9.0) == "A"
        desk.refused("3", A)
        assert desk.table.locks[A].asker is desk["1"]

    def test_nobody_who_may_ask_about_nothing(self, desk):
        desk.refused("1", A)
        desk.now = 10.0
        assert desk.table.depart(desk["1"], desk.now, may_ask=[]) == frozenset()
        assert desk["1"].waiting
        assert desk.goes("1") == "A"

    def test_the_same_one_if_nobody_else_waits(self, desk):
        desk.refused("1", A)
        desk.goes("1", 10.0)
        desk.refused("1", A)
        assert desk.goes("1", 20.0) == "A"

    def test_the_longest_waiting_one_when_the_leader_leaves(self, desk):
        for name in "123":
            desk.refused(name, A)
        assert desk.goes("2", 1.0) is None
        desk.table.leave(desk["1"], 2.0)
        assert (desk.leader(A), desk.due("2")) == ("2", 7.071)
        assert desk["2"].wake.rung > desk["3"].wake.rung

    def test_another_when_the_one_that_asks_is_lost(self, desk):
        for name in "12":
            desk.refused(name, A)
        due = desk["1"].due
        assert desk.goes("1", due) == "A"
        assert desk.goes("2", due + 29.9) is None
        assert desk.goes("2", due + 30.0) == "A"

    def test_a_batch_that_needs_what_another_asks_about_waits_a_moment_and_goes_without(self, desk):
        desk.refused("1", A)
        desk.refused("2", A, B)
        assert desk.goes("1", desk["1"].due) == "A"
        desk.table.resettle([desk["2"]], desk.now)
        assert desk["2"].due >= desk.now + 10 / 4.5
        desk.now = 30.0
        assert desk.goes("2") == "B", "its own, and not what has been asked about for 20 seconds"

    def test_a_batch_sends_all_that_it_needs_and_leads_it(self, desk):
        desk.refused("1", A, delay=100.0)
        desk.refused("2", A, B)
        assert desk.goes("2", 9.0) == "AB"
        assert (desk.leader(A), desk.leader(B)) == ("2", "2")

    def test_keys_no_longer_waited_for_are_left_to_others(self, desk):
        desk.refused("1", A, B)
        desk.refused("2", B)
        desk.table.verdict(desk["1"], [A, B], [], 1.0)
        desk.joins("1", A)
        assert desk.leader(B) == "2"
        assert list(desk.table.locks[B].queue) == [desk["2"]]

    def test_leaving_twice_changes_nothing(self, desk):
        desk.refused("1", A)
        desk.table.leave(desk["1"], 0.0)
        desk.refused("2", A)
        desk.table.leave(desk["1"], 0.0)
        assert desk.leader(A) == "2"
        assert desk.table.locks[A].calls == 1.0


class TestALockDelaysNoOtherRecord:
    def test_what_is_free_goes_after_the_calls_own_delay_though_the_rest_is_refused_again_and_again(self, desk):
        desk.refused("1", A)
        desk.refused("2", B)
        desk.refused("3", *(f"o|{n}" for n in range(20)), A, B, delay=10.0)
        for n in range(20):
            desk.refused(f"x{n}", f"o|{n}", delay=0.5)
        while desk.now < 9.0:
            desk.now += 0.5
            for n in range(20):
                if desk.goes(f"x{n}"):
                    desk.refused(f"x{n}", f"o|{n}", delay=0.5)
            if desk.now == 1.0:
                desk.table.unlock(A)
                desk.table.resettle([desk["3"]], desk.now)
            assert desk.goes("3") is None or desk.now > 5.0
        desk.now = 10.0
        assert desk["3"].due <= 10.7

    def test_what_only_a_batch_needs_is_asked_about_after_three_of_its_delays_at_the_latest(self, desk):
        others = [f"o|{n}" for n in range(99)]
        desk.refused("1", A, *others)
        for n, key in enumerate(others):
            desk.refused(f"x{n}", key, delay=2.0)
        waited = 0.0
        while (sent := desk.goes("1", waited)) is None:
            waited += 1.0
            for n, key in enumerate(others):
                if desk.goes(f"x{n}", waited):
                    desk.refused(f"x{n}", key, delay=2.0)
        assert "A" in sent
        assert 20 <= waited <= 31

    def test_what_is_free_is_not_held_back_by_endless_questions_about_the_rest(self, desk):
        desk.refused("1", A, B)
        desk.table.verdict(desk["x"], (), [B], 0.5)
        for second in range(1, 40):
            desk.now = float(second)
            desk.table.locks[A].ask(desk["x"], desk.now)
            if desk.goes("1") == "B":
                break
        assert 10 <= second <= 30

    def test_a_record_that_was_locked_after_a_call_came_wakes_it_too(self, desk):
        desk.refused("2", A)
        desk.joins("1", A, B)
        desk.refused("3", B)
        assert desk.goes("1") is None, "it is in both queues now"
        desk.table.verdict(desk["3"], (), [A, B], 1.0)
        assert desk["1"].wake.rung
        assert desk.goes("1", 1.0) == "AB"

    def test_an_unlock_found_by_another_call_wakes_the_leader_too(self, desk):
        desk.refused("1", A)
        desk.table.verdict(desk["2"], [], [A], 1.0)
        assert desk["1"].wake.rung == 1
        assert desk.goes("1", 1.0) == "A"

    def test_a_batch_goes_once_all_of_its_records_are_free(self, desk):
        desk.refused("1", A)
        desk.refused("2", B)
        desk.refused("3", A, B)
        desk.now = 1.0
        desk.table.verdict(desk["1"], [], [A], 1.0)
        assert desk.goes("3") is None
        desk.table.verdict(desk["2"], [], [B], 1.0)
        assert desk.goes("3") == "AB"


class TestTurns:
    def test_an_unlock_wakes_a_few_and_each_verdict_the_next(self):
        desk = Desk(wake_at_once=2)
        for name in "12345":
            desk.refused(name, A)
        desk.goes("1", 10.0)
        before = [desk[name].wake.rung for name in "2345"]
        desk.accepted("1", A)
        assert [desk[name].wake.rung - rung for name, rung in zip("2345", before, strict=True)] == [1, 1, 0, 0]
        assert [desk.goes(name) for name in "5423"] == [None, None, "A", "A"]
        desk.table.verdict(desk["3"], [], [A], desk.now)
        assert [desk.goes(name) for name in "54"] == [None, "A"]
        desk.table.leave(desk["2"], desk.now)
        assert desk.goes("5") == "A"
        for name in "45":
            desk.accepted(name, A)
        assert not desk.table.locks
        assert not desk.table.turns.limiters

    def test_a_refusal_sends_those_in_line_back_to_wait(self):
        desk = Desk(wake_at_once=1)
        for name in "1234":
            desk.refused(name, A)
        desk.goes("1", 10.0)
        desk.accepted("1", A)
        assert [desk.goes(name) for name in "432"] == [None, None, "A"]
        rung = desk["3"].wake.rung
        desk.refused("2", A)
        assert (desk.leader(A), desk["3"].wake.rung) == ("3", rung + 1), "it slept until it would get a slot"
        assert not desk.table.turns.limiters, "nobody stands in line for a locked record"
        assert [desk.goes(name, 15.0) for name in "24"] == [None, None]
        assert desk.goes("3", 16.0) == "A"
        desk.accepted("3", A)
        assert [desk.goes(name) for name in "24"] == ["A", None]

    def test_turns_are_per_origin_not_per_record(self):
        desk = Desk(wake_at_once=1)
        for name, key in zip("1234", (A, A, B, B), strict=True):
            desk.refused(name, key)
        desk.refused("6", "p|A")
        desk.refused("7", "p|A")
        for name in "136":
            desk.goes(name, 10.0)
        desk.accepted("1", A)
        desk.accepted("3", B)
        desk.accepted("6", "p|A")
        assert [desk.goes(name) for name in "247"] == ["A", None, "A"]

    def test_a_slot_without_a_verdict_goes_to_the_next_one_in_line_alone(self):
        """Not to all who wait: a thousand calls in line are no reason for a thousand calls at once."""
        desk = Desk(wake_at_once=1, verdict_timeout=5.0)
        for name in "12345":
            desk.refused(name, A)
        desk.goes("1", 10.0)
        desk.accepted("1", A)
        assert desk.goes("2") == "A"
        assert [desk.goes("3", 14.9), desk.goes("3", 15.0)] == [None, "A"]
        assert [desk.goes("4", 15.0), desk.goes("5", 15.0), desk.goes("4", 19.9)] == [None] * 3
        assert [desk.goes("4", 20.0), desk.goes("5", 20.0)] == ["A", None]

    def test_a_second_success_does_not_look_at_all_who_are_in_line_again(self):
        desk = Desk(wake_at_once=1)
        for name in "1234":
            desk.refused(name, A)
        desk.goes("1", 10.0)
        desk.accepted("1", A)
        assert desk.table.unlock(A) == {}


class TestOtherProcesses:
    def test_a_record_that_is_needed_elsewhere_stays_known(self, desk):
        desk.refused("1", A)
        desk.table.locks[A].elsewhere = 1.0
        desk.table.leave(desk["1"], 1.0)
        assert set(desk.table.locks) == {A}

    def test_their_calls_count(self, desk):
        desk.refused("1", A)
        desk.table.locks[A].elsewhere = 3.0
        desk.table.resettle([desk["1"]], 0.0)
        assert (desk.due("1"), desk["1"].wake.rung) == (5.0, 1)

    def test_their_questions_are_awaited_for_a_while(self, desk):
        desk.refused("1", A, delay=1.0)
        desk.table.locks[A].ask(Asker(4.0), 0.5)
        assert [desk.goes("1", 1.0), desk.goes("1", 4.4), desk.goes("1", 4.6)] == [None, None, "A"]


def test_a_call_counts_by_its_share_from_its_first_refusal_on(desk):
    desk.table.verdict(desk["1"], [A, B, C, D], (), 0.0)
    assert [desk.table.locks[key].calls for key in (A, B, C, D)] == [0.25] * 4
    desk.joins("1", A, B)
    assert [desk.table.locks[key].calls for key in (A, B)] == [0.5] * 2
    assert set(desk.table.locks) == {A, B}


def test_a_count_that_an_interrupt_left_too_low_is_no_less_than_the_call_itself(desk):
    desk.refused("1", A)
    desk.table.locks[A].calls = -1.0
    assert [desk.goes("1", 9.9), desk.goes("1", 10.0)] == [None, "A"]


def test_records_that_are_not_shared_wait_as_for_a_call_alone():
    desk = Desk(max_records=0)
    desk.refused("1", A, B, C, D)
    assert [desk.goes("1", 9.9), desk.goes("1", 10.0)] == [None, "ABCD"]


def test_a_call_that_found_no_room_is_woken_by_the_unlock_if_another_found_some_later():
    desk = Desk(max_records=1)
    desk.refused("1", B)
    desk.refused("2", A)
    desk.table.leave(desk["1"], 0.0)
    desk.refused("3", A)
    assert desk.goes("2", 1.0) is None
    desk.table.verdict(desk["3"], (), [A], 2.0)
    assert desk["2"].wake.rung
    assert desk.goes("2", 2.0) == "A"


def test_a_full_table_shares_no_more():
    desk = Desk(max_records=1)
    desk.refused("1", A)
    desk.refused("2", B, delay=1.0)
    desk.refused("3", A, B, delay=2.0)
    assert set(desk.table.locks) == {A}
    assert [desk.goes("2", 0.9), desk.goes("2", 1.0)] == [None, "B"]
    assert desk.goes("3", 2.0) == "AB"
    desk.accepted("2", B)
    desk.table.leave(desk["3"], 2.0)
    desk.table.leave(desk["1"], 2.0)
    assert not desk.table.locks
