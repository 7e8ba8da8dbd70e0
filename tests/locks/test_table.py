"""The rules of sharing, one by one, with time moved by hand."""

import pytest

from crm_guard.locks.table import Leader, LockTable

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

    def refused(self, name, *keys, delay=1.0):
        self.table.verdict(self[name], keys, (), self.now)
        self.table.enrol(self[name], keys, delay, self.now)

    def accepted(self, name, *keys):
        self.table.verdict(self[name], (), keys, self.now)
        self.table.leave(self[name], self.now)

    def goes(self, name, at=None):
        self.now = self.now if at is None else at
        self.table.settle(self[name], self.now)
        if self.table.may_go(self[name], self.now):
            return "".join(sorted(key[-1] for key in self.table.depart(self[name], self.now)))
        assert self.table.look_again(self[name], self.now) > self.now, "it would spin"
        return None


@pytest.fixture
def desk():
    return Desk()


def test_one_probes_and_the_others_follow(desk):
    for name in "123":
        desk.refused(name, A)
    assert [desk.goes(name, 0.9) for name in "123"] == [None] * 3
    assert [desk.goes(name, 1.0) for name in "321"] == [None, None, "A"]
    desk.accepted("1", A)
    assert [desk.goes(name) for name in "23"] == ["A", "A"]


def test_a_locked_verdict_renews_the_shared_schedule(desk):
    for name in "12":
        desk.refused(name, A)
    assert desk.goes("1", 1.0) == "A"
    desk.refused("1", A, delay=2.0)
    assert [desk.goes(name, 2.9) for name in "12"] == [None, None]
    assert [desk.goes(name, 3.0) for name in "21"] == [None, "A"]


def test_a_latecomer_with_a_shorter_delay_pulls_the_probe_forward(desk):
    desk.refused("1", A, delay=8.0)
    desk.now = 1.0
    desk.refused("2", A, delay=1.0)
    assert desk["1"].wake.rung == 1
    assert [desk.goes(name, 2.0) for name in "21"] == [None, "A"]
    desk.refused("1", A, delay=8.0)
    assert [desk.goes(name, 9.9) for name in "21"] == [None, None], "the follower pulls once, not for ever"


def test_the_longest_waiting_follower_inherits_the_probe_and_its_due_instant(desk):
    for name in "123":
        desk.refused(name, A, delay=4.0)
    desk.now = 2.0
    desk.table.leave(desk["1"], 2.0)
    assert (desk["2"].wake.rung, desk["3"].wake.rung) == (1, 0)
    assert [desk.goes(name, 3.9) for name in "23"] == [None, None]
    assert [desk.goes(name, 4.0) for name in "32"] == [None, "A"]


def test_a_leader_that_gives_up_after_a_refusal_leaves_a_delay_behind(desk):
    for name in "12":
        desk.refused(name, A)
    assert desk.goes("1", 1.0) == "A"
    desk.table.verdict(desk["1"], [A], [], 1.5)
    desk.table.leave(desk["1"], 1.5)
    assert [desk.goes("2", 2.4), desk.goes("2", 2.5)] == [None, "A"]


def test_a_leader_without_a_verdict_loses_the_probe_in_the_end(desk):
    for name in "12":
        desk.refused(name, A)
    assert desk.goes("1", 1.0) == "A"
    assert [desk.goes("2", 30.9), desk.goes("2", 31.0)] == [None, "A"]
    desk.table.verdict(desk["1"], [A], [], 32.0)
    assert desk.table.locks[A].leader is desk["2"]


def test_a_woken_follower_that_is_refused_becomes_the_leader():
    desk = Desk(wake_at_once=1)
    for name in "1234":
        desk.refused(name, A)
    desk.goes("1", 1.0)
    desk.accepted("1", A)
    assert [desk.goes(name) for name in "432"] == [None, None, "A"]
    desk.refused("2", A, delay=2.0)
    assert [desk[name].wake.rung for name in "34"] == [0, 0]
    assert [desk.goes(name, 2.9) for name in "234"] == [None] * 3
    assert desk.goes("2", 3.0) == "A"
    desk.accepted("2", A)
    assert [desk.goes(name) for name in "34"] == ["A", None]


def test_an_unlock_wakes_a_few_and_each_verdict_the_next():
    desk = Desk(wake_at_once=2)
    for name in "12345":
        desk.refused(name, A)
    desk.goes("1", 1.0)
    desk.accepted("1", A)
    assert [desk[name].wake.rung for name in "2345"] == [1, 1, 0, 0]
    assert [desk.goes(name) for name in "5423"] == [None, None, "A", "A"]
    desk.table.verdict(desk["3"], [], [A], desk.now)
    assert [desk.goes(name) for name in "54"] == [None, "A"]
    desk.table.leave(desk["2"], desk.now)
    assert desk.goes("5") == "A"
    for name in "45":
        desk.accepted(name, A)
    assert not desk.table.locks
    assert not desk.table.paces


def test_wake_ups_are_limited_per_origin_not_per_record():
    desk = Desk(wake_at_once=1)
    for name, key in zip("1234", (A, A, B, B), strict=True):
        desk.refused(name, key)
    desk.refused("6", "p|A")
    desk.refused("7", "p|A")
    for name in "136":
        desk.goes(name, 1.0)
    desk.accepted("1", A)
    desk.accepted("3", B)
    desk.accepted("6", "p|A")
    assert [desk.goes(name) for name in "247"] == ["A", None, "A"]


def test_a_call_does_not_wait_for_ever_for_its_turn():
    desk = Desk(wake_at_once=1, verdict_timeout=5.0)
    for name in "123":
        desk.refused(name, A)
    desk.goes("1", 1.0)
    desk.accepted("1", A)
    assert desk.goes("2") == "A"
    assert [desk.goes("3", 5.9), desk.goes("3", 6.0)] == [None, "A"]


def test_a_batch_follows_one_of_its_records_and_then_sends_everything(desk):
    desk.refused("1", A)
    desk.refused("2", A, B)
    assert desk.goes("1", 1.0) == "A"
    assert desk.goes("2", 1.1) is None
    desk.accepted("1", A)
    assert desk.goes("2") == "AB"
    assert desk.table.locks[B].leader is desk["2"]


def test_what_is_free_goes_at_the_tick_without_what_is_not(desk):
    desk.refused("1", A, delay=9.0)
    desk.refused("2", B, delay=0.5)
    desk.refused("3", A, B, delay=9.0)
    assert desk.goes("2", 0.5) == "B"
    desk.accepted("2", B)
    assert [desk.goes("3", 8.9), desk.goes("1", 9.0)] == [None, "A"]
    assert desk.goes("3", 9.0) is None, "a verdict under way is awaited"
    desk.refused("1", A, delay=9.0)
    assert desk.goes("3", 9.1) == "B"


def test_a_verdict_under_way_is_awaited_for_one_delay_at_most(desk):
    desk.refused("1", A)
    desk.refused("2", B)
    desk.refused("3", A, B)
    assert [desk.goes("1", 1.0), desk.goes("2", 1.0)] == ["A", "B"]
    desk.accepted("2", B)
    assert [desk.goes("3", 1.9), desk.goes("3", 2.0)] == [None, "B"]


def test_leaderless_records_are_probed_by_the_batch_that_learns_most(desk):
    desk.refused("1", A)
    desk.refused("2", A, B)
    desk.refused("3", A, B, C, D)
    for second in (1.0, 2.0, 3.0):
        assert desk.goes("1", second) == "A"
        desk.refused("1", A)
        assert [desk.goes("2"), desk.goes("3")] == [None, None]
    assert [desk.goes("2", 4.0), desk.goes("3", 4.0)] == [None, "BCD"]


def test_a_batch_that_finds_another_leader_gives_up_its_own_probes(desk):
    desk.refused("1", A, B)
    assert desk.goes("1", 1.0) == "AB"
    desk.refused("2", B, C)
    desk.table.verdict(desk["1"], [A, B], [], 1.0)
    desk.table.locks.grant(A, Leader(1.0), 9.0, 1.0)
    desk.table.enrol(desk["1"], [A, B], 1.0, 1.0)
    assert desk.table.locks[B].leader is desk["2"]


def test_an_unlock_found_by_another_call_wakes_the_leader_too(desk):
    desk.refused("1", A, delay=5.0)
    desk.table.verdict(desk["2"], [], [A], 1.0)
    assert desk["1"].wake.rung == 1
    assert desk.goes("1", 1.0) == "A"


def test_a_full_table_shares_no_more():
    desk = Desk(max_records=1)
    desk.refused("1", A, delay=9.0)
    desk.refused("2", B)
    desk.refused("3", A, B)
    assert set(desk.table.locks) == {A}
    assert [desk.goes("2", 0.9), desk.goes("2", 1.0), desk.goes("3", 2.0)] == [None, "B", "B"]
    desk.accepted("2", B)
    desk.table.leave(desk["3"], 2.0)
    desk.table.leave(desk["1"], 2.0)
    assert not desk.table.locks


def test_leaving_twice_changes_nothing(desk):
    desk.refused("1", A)
    desk.table.leave(desk["1"], 0.0)
    desk.refused("2", A)
    desk.table.leave(desk["1"], 0.0)
    assert desk.table.locks[A].leader is desk["2"]


def test_keys_no_longer_waited_for_are_left_to_others(desk):
    desk.refused("1", A, B)
    desk.refused("2", B)
    desk.table.verdict(desk["1"], [A, B], [], 1.0)
    desk.table.enrol(desk["1"], [A], 1.0, 1.0)
    assert desk.table.locks[B].leader is desk["2"]
