"""How long a call waits, and which budget ends it: with numbers alone."""

from __future__ import annotations

import sys
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard import GiveUpReason, GuardSettings
from crm_guard._protocol.waits_and_budgets import Pacing, waits

START = 1000.0


def never_random() -> float:
    return 0.0


def pacing(**policy: object) -> Pacing:
    return Pacing(GuardSettings(**policy), never_random)


def first_waits(count: int, random=never_random, **policy: object) -> list[float]:
    return list(islice(waits(GuardSettings(**policy), random), count))


# -- the waits of the settings


def test_waits_grow_by_the_factor_from_the_first_one_on():
    grown = first_waits(4, wait_initial=1, wait_max=100, wait_exp_base=3, wait_jitter=0)
    assert grown == [1, 3, 9, 27]


def test_waits_stop_growing_at_the_longest():
    assert first_waits(5, wait_initial=2, wait_max=7, wait_exp_base=2, wait_jitter=0) == [2, 4, 7, 7, 7]


def test_the_default_waits_are_those_that_the_settings_tell_of():
    assert first_waits(5) == pytest.approx([3, 3.6, 4.32, 5, 5])


@pytest.mark.parametrize("policy", [{"wait_exp_base": 1, "wait_max": 9}, {"wait_max": 3, "wait_exp_base": 2}])
def test_waits_may_stay_as_they_are(policy):
    assert first_waits(4, wait_initial=3, wait_jitter=0, **policy) == [3, 3, 3, 3]


def test_a_huge_factor_ends_at_the_longest_wait_and_never_overflows():
    huge = first_waits(2000, wait_initial=1, wait_max=5, wait_exp_base=sys.float_info.max, wait_jitter=0)
    assert huge == [1] + [5] * 1999


def test_a_factor_that_leaps_over_every_float_ends_at_the_longest_wait():
    leaps = first_waits(5, wait_initial=1e-300, wait_max=5, wait_exp_base=1e200, wait_jitter=0)
    assert leaps == [1e-300, pytest.approx(1e-100), 5, 5, 5]


def test_waits_have_no_end_however_small_the_factor():
    last = first_waits(20_000, wait_initial=1, wait_max=5, wait_exp_base=1.05, wait_jitter=0)[-1]
    assert last == 5


def test_jitter_only_ever_shortens_a_wait_and_by_its_share_at_most():
    policy = {"wait_initial": 2, "wait_max": 4, "wait_exp_base": 2, "wait_jitter": 0.25}
    assert first_waits(3, lambda: 0.0, **policy) == [2, 4, 4]
    assert first_waits(3, lambda: 0.5, **policy) == [1.75, 3.5, 3.5]
    assert first_waits(3, lambda: 1.0, **policy) == [1.5, 3, 3]


def test_each_wait_draws_its_own_random_number():
    drawn = iter([0.0, 1.0, 0.5])
    assert first_waits(3, lambda: next(drawn), wait_initial=4, wait_max=4, wait_jitter=1) == [4, 0, 2]
    assert next(drawn, None) is None


@settings(max_examples=40, deadline=None)
@given(
    initial=st.floats(0.001, 100),
    more=st.floats(0, 100),
    base=st.floats(1, 1e12),
    jitter=st.floats(0, 1),
    random=st.floats(0, 1),
)
def test_no_wait_is_longer_than_the_longest_or_shorter_than_the_first_may_be(initial, more, base, jitter, random):
    policy = {"wait_initial": initial, "wait_max": initial + more, "wait_exp_base": base, "wait_jitter": jitter}
    found = first_waits(12, lambda: random, **policy)
    assert found == sorted(found)
    assert all(initial * (1 - jitter) - 1e-9 <= wait <= initial + more for wait in found)


# -- the next wait of one call


def test_the_next_wait_is_kept_until_another_is_drawn():
    pace = pacing(wait_initial=1, wait_max=8, wait_exp_base=2)
    assert (pace.delay, pace.draw(), pace.delay, pace.draw(), pace.delay) == (0.0, 1, 1, 2, 2)


@pytest.mark.parametrize(
    ("asked", "delay"), [(None, 3.0), (0.0, 3.0), (2.9, 3.0), (3.1, 3.1), (86_400.0, 86_400.0)]
)
def test_crm_may_ask_for_a_longer_wait_and_never_for_a_shorter_one(asked, delay):
    pace = pacing()
    assert pace.draw(asked) == delay
    assert pace.delay == delay


def test_a_longer_wait_that_crm_asked_for_once_does_not_last():
    pace = pacing()
    assert pace.draw(60.0) == 60
    assert pace.draw() == pytest.approx(3.6)


def test_the_longest_wish_wins_and_none_of_them_draws():
    pace = pacing()
    pace.draw()
    assert pace.at_least(pace.delay, None) == 3
    assert pace.at_least(pace.delay, 7.5) == 7.5
    assert pace.delay == 7.5
    assert pace.draw() == pytest.approx(3.6)


def test_an_interrupt_inside_a_draw_leaves_waits_for_later_draws():
    random = iter([0.0, KeyboardInterrupt(), 0.0, 0.0])

    def interrupted() -> float:
        found = next(random)
        if isinstance(found, BaseException):
            raise found
        return found

    pace = Pacing(GuardSettings(wait_jitter=0.2), interrupted)
    assert pace.draw() == 3
    with pytest.raises(KeyboardInterrupt):
        pace.draw()
    assert pace.delay == 3
    assert pace.draw() == 3
    assert pace.draw() == pytest.approx(3.6)


# -- the budgets


def test_the_time_budget_begins_once():
    pace = pacing(timeout=10)
    assert pace.deadline is None
    assert pace.begin(START) == START + 10
    assert pace.begin(START + 500) == START + 10
    assert pace.deadline == START + 10


@pytest.mark.parametrize(
    ("attempts", "limit"), [(1, None), (2, None), (3, GiveUpReason.ATTEMPTS), (4, GiveUpReason.ATTEMPTS)]
)
def test_no_more_sends_than_the_settings_allow(attempts, limit):
    pace = pacing(attempts=3)
    assert pace.limit(attempts=attempts, credits=None, now=START) is limit


@pytest.mark.parametrize(
    ("credits_left", "limit"),
    [(None, None), (7, None), (6, GiveUpReason.CREDITS), (5, GiveUpReason.CREDITS), (0, GiveUpReason.CREDITS)],
)
def test_credits_are_left_alone_from_the_least_on(credits_left, limit):
    pace = pacing(min_credits=6)
    assert pace.out_of_credits(credits_left) is (limit is not None)
    assert pace.limit(attempts=1, credits=credits_left, now=START) is limit


def test_without_a_least_only_the_last_credit_counts():
    assert [pacing().out_of_credits(left) for left in (None, 1, 0)] == [False, False, True]


@pytest.mark.parametrize(
    ("late", "limit"),
    [(0, None), (6.99, None), (7, None), (7.01, GiveUpReason.TIMEOUT), (11, GiveUpReason.TIMEOUT)],
)
def test_a_wait_that_would_end_after_the_deadline_does_not_begin(late, limit):
    pace = pacing(timeout=10)
    pace.begin(START)
    pace.draw()
    assert pace.limit(attempts=1, credits=None, now=START + late) is limit


def test_a_wait_that_crm_asks_for_counts_against_the_time_budget():
    pace = pacing(timeout=10)
    pace.begin(START)
    pace.draw(10.5)
    assert pace.limit(attempts=1, credits=None, now=START) is GiveUpReason.TIMEOUT


def test_without_a_time_budget_nothing_is_waited_for_even_if_the_wait_were_none():
    pace = pacing(timeout=0)
    assert pace.limit(attempts=1, credits=None, now=START) is GiveUpReason.TIMEOUT


def test_the_time_budget_begins_at_the_latest_when_it_is_asked_for():
    pace = pacing(timeout=10)
    pace.draw()
    assert pace.limit(attempts=1, credits=None, now=START) is None
    assert pace.deadline == START + 10


def test_of_several_spent_budgets_sends_come_first_and_time_last():
    pace = pacing(attempts=2, timeout=0)
    assert pace.limit(attempts=2, credits=0, now=START) is GiveUpReason.ATTEMPTS
    assert pace.limit(attempts=1, credits=0, now=START) is GiveUpReason.CREDITS
