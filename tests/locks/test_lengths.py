"""Learning how long locks last."""

import pickle

import pytest

from crm_guard._transport.lock_lengths import LockLengths, next_wait


def test_without_enough_lengths_the_plain_wait_stays():
    assert next_wait([5.0] * 4, elapsed=0.0, plain=3.0, u=0.5) == 3.0


def test_lengths_that_agree_are_waited_for():
    assert next_wait([5.0] * 9, elapsed=0.0, plain=3.0, u=0.0) == 5.0
    assert next_wait([5.0] * 9, elapsed=0.0, plain=3.0, u=0.5) == pytest.approx(4.75)


def test_what_was_waited_already_counts():
    assert next_wait([5.0] * 9, elapsed=2.0, plain=3.0, u=0.0) == 3.0


def test_lengths_that_disagree_leave_the_plain_wait():
    assert next_wait([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], elapsed=0.0, plain=3.0, u=0.0) == 3.0


def test_of_two_kinds_of_locks_the_longer_is_left_after_the_shorter():
    assert next_wait([2.0] * 9 + [8.0] * 9, elapsed=2.5, plain=3.0, u=0.0) == 5.5


@pytest.mark.parametrize(("length", "expected"), [(0.01, 1.0), (100.0, 9.0)])
def test_a_learnt_wait_is_never_near_zero_nor_far_out(length, expected):
    assert next_wait([length] * 9, elapsed=0.0, plain=3.0, u=0.9) == pytest.approx(expected)


def test_locks_longer_than_all_before_are_waited_for_plainly():
    assert next_wait([5.0] * 9, elapsed=6.0, plain=3.0, u=0.0) == 3.0


def test_origins_learn_apart_and_memory_is_bounded():
    lengths = LockLengths(size=5, origins=2)
    for origin in "abc":
        for seconds in (9.0, *[4.0] * 5):
            lengths.observe(origin, seconds)
    waits = [lengths.next_wait(origin, elapsed=0.0, plain=3.0, u=0.0) for origin in "abcd"]
    assert waits == [3.0, 4.0, 4.0, 3.0]


def test_a_pickle_starts_anew():
    lengths = LockLengths(size=5, origins=2)
    lengths.observe("a", 1.0)
    other = pickle.loads(pickle.dumps(lengths))  # noqa: S301
    assert (other._size, other._origins, other._seen) == (5, 2, {})
