"""The arithmetic of asking: how long some calls wait together."""

from math import inf, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_guard.locks.pacing import due, shortest

delays = st.floats(0.01, 300)
instants = st.floats(0, 1e7)
counts = st.floats(0.01, 1e6)


@given(delay=delays, refused=instants, size=st.integers(1, 500))
def test_a_lone_call_waits_its_own_delay_however_many_records_it_needs(delay, refused, size):
    records = [(1 / size, refused)] * size
    assert due(delay, refused, records) - refused == pytest.approx(delay, rel=1e-6)


@pytest.mark.parametrize(("calls", "wait"), [(1, 3.0), (4, 1.5), (9, 1.0), (16, 0.75), (10_000, 3.0 / 4.5)])
def test_calls_wait_by_the_square_root_of_their_number(calls, wait):
    assert due(3.0, 100.0, [(calls, 100.0)]) == pytest.approx(100.0 + wait)


def test_a_delay_below_the_bound_is_never_shortened():
    assert due(0.05, 1.0, [(10_000, 1.0)]) == pytest.approx(1.05)
    assert [shortest(delay) for delay in (0.05, 0.5, 1.0, 4.5, 9.0)] == [0.05, 0.5, 0.5, 1.0, 2.0]


def test_records_refused_at_different_times_add_up():
    """Each of two calls' records at its own age: 0.5 * 5**2 + 0.5 * 1**2 = 13."""
    assert due(sqrt(13), 0.0, [(0.5, -4.0), (0.5, 0.0)]) == pytest.approx(1.0)


def test_a_question_that_is_overdue_is_due_after_the_shortest_time():
    assert due(3.0, 100.0, [(1.0, 10.0)]) == 100.0 + shortest(3.0)
    assert due(3.0, 100.0, [(20.0, 10.0), (20.0, 99.0)]) == 100.0 + shortest(3.0)


@given(
    delay=delays,
    records=st.lists(st.tuples(counts, instants), min_size=1, max_size=20),
    more=st.floats(1, 100),
    data=st.data(),
)
def test_the_more_calls_need_a_record_the_sooner_it_is_asked_about_and_never_too_soon(delay, records, more, data):
    start = max(since for _, since in records)
    chosen = data.draw(st.integers(0, len(records) - 1))
    crowded = [(n * more if i == chosen else n, since) for i, (n, since) in enumerate(records)]
    before, after = due(delay, start, records), due(delay, start, crowded)
    assert start + shortest(delay) <= after <= before + 1e-6 * max(1.0, before) < inf


@given(delay=delays, others=st.lists(st.tuples(counts, st.floats(0, 100)), max_size=20))
def test_a_record_that_counts_as_a_whole_call_is_sent_after_the_calls_own_delay_at_the_latest(delay, others):
    assert due(delay, 100.0, [(1.0, 100.0), *others]) <= 100.0 + delay * (1 + 1e-9)
