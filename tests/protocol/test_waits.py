"""The waits of one call: their bounds, their growth and their jitter, as the settings say."""

from __future__ import annotations

import itertools
import random
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_guard._protocol.waits_and_budgets import waits
from crm_guard.settings import GuardSettings


@given(
    initial=st.floats(1e-3, 100),
    growth=st.floats(1, 1e6),
    room=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
    seed=st.integers(),
)
def test_waits_stay_within_their_bounds(
    initial: float, growth: float, room: float, jitter: float, seed: int
) -> None:
    settings = GuardSettings(
        wait_initial=initial, wait_max=initial * room, wait_exp_base=growth, wait_jitter=jitter
    )
    delays = list(itertools.islice(waits(settings, random.Random(seed).random), 50))
    assert all(initial * (1 - jitter) <= delay <= settings.wait_max for delay in delays)
    assert all(delay > 0 for delay in delays)
    assert delays[0] <= initial


@given(initial=st.floats(1e-3, 100), growth=st.floats(1, 1e6), room=st.floats(1, 1e6))
def test_ceilings_never_shrink(initial: float, growth: float, room: float) -> None:
    settings = GuardSettings(wait_initial=initial, wait_max=initial * room, wait_exp_base=growth)
    ceilings = list(itertools.islice(waits(settings, lambda: 0.0), 50))
    assert ceilings == sorted(ceilings)
    assert ceilings[0] == initial


def test_default_sequence_is_the_documented_one() -> None:
    ceilings = list(itertools.islice(waits(GuardSettings(), lambda: 0.0), 5))
    assert ceilings == pytest.approx([3.0, 3.6, 4.32, 5.0, 5.0])


def test_jitter_shortens_each_wait_by_its_share_of_the_random_number() -> None:
    draws = iter([0.0, 0.5, 1.0])
    delays = waits(GuardSettings(wait_initial=10, wait_max=10), lambda: next(draws))
    assert [next(delays) for _ in range(3)] == [10.0, 9.0, 8.0]


def test_random_is_drawn_once_for_each_wait() -> None:
    draws = itertools.count()
    list(itertools.islice(waits(GuardSettings(), lambda: next(draws) * 0.0), 5))
    assert next(draws) == 5


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({}, 5.0),
        ({"wait_exp_base": 1}, 3.0),
        ({"wait_exp_base": 1 + 2**-52}, 3.0),
        ({"wait_exp_base": sys.float_info.max}, 5.0),
        ({"wait_exp_base": 1e200, "wait_initial": 1e-250}, 5.0),
        ({"wait_initial": 5e-324, "wait_exp_base": 1e300}, 5.0),
    ],
)
def test_no_sequence_overflows_or_ends(options: dict[str, Any], last: float) -> None:
    delays = waits(GuardSettings(**options), lambda: 0.0)
    assert next(itertools.islice(delays, 5000, None)) == pytest.approx(last)


def test_calls_do_not_share_a_sequence() -> None:
    settings = GuardSettings()
    first = waits(settings, lambda: 0.0)
    assert [next(first), next(first)] == pytest.approx([3.0, 3.6])
    assert next(waits(settings, lambda: 0.0)) == 3.0
