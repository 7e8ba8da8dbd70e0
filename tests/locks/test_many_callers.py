"""Many callers over the rules, in virtual time: what sharing costs CRM, and how long it keeps calls waiting."""

from collections import Counter
from statistics import mean

import pytest

from tests.benchmarks.waits import LOCKS, batches, one_record

SEEDS = range(12)
FEW = range(5)


@pytest.mark.parametrize(
    ("make", "lock", "calls", "delay"),
    [
        (one_record, "constant 5", 66, 1.0),
        (one_record, "lognormal 4", 68, 2.0),
        (one_record, "bimodal 1/30", 82, 1.4),
        (batches, "constant 5", 51, 1.0),
        (batches, "lognormal 4", 125, 2.1),
        (batches, "bimodal 1/30", 115, 1.8),
    ],
)
def test_many_callers_make_few_calls_and_hear_of_an_unlock_soon(make, lock, calls, delay):
    """Fifty calls on one record, and twenty batches of a hundred; alone they make 60 to 250 calls, and wait 2 s."""
    runs = [make(seed, shared=True, draw=LOCKS[lock]) for seed in SEEDS]
    assert mean(run.calls for run in runs) <= calls
    assert mean(mean(run.delays().values()) for run in runs) <= delay


def test_a_lock_delays_no_other_record_for_much_longer_than_a_call_alone_would_wait():
    for lock in LOCKS.values():
        for seed in FEW:
            assert batches(seed, shared=True, draw=lock).longest() <= 3 * 5.0 + 1.0


def test_a_free_record_is_not_held_back_by_the_belief_that_it_is_locked():
    """Two calls at least need it then, so one of them asks within `5 / sqrt(2)` s, and the other goes then."""
    for seed in FEW:
        crowd = one_record(seed, shared=True, draw=LOCKS["lognormal 4"], spread=25.0)
        assert crowd.held_back() <= 5.0 / 2**0.5 + 2 * 0.3


def test_an_unlock_lets_no_more_go_at_once_than_it_should():
    for seed in FEW:
        crowd = one_record(seed, shared=True, draw=LOCKS["constant 5"], callers=300)
        late = [sent for sent, _ in crowd.sends if sent > crowd.unlocks["o|1"]]
        assert max(sum(sent <= other < sent + 0.1 for other in late) for sent in late) <= 11


@pytest.mark.parametrize("callers", [2, 5, 20, 50])
def test_nobody_spends_more_of_its_attempts_than_alone(callers):
    for seed in FEW[:2]:
        crowd = one_record(seed, shared=True, draw=lambda _: 60.0, callers=callers)
        alone = one_record(seed, shared=False, draw=lambda _: 60.0, callers=callers)
        sends, lone = (Counter(name for _, name in each.sends) for each in (crowd, alone))
        assert max(sends.values()) <= min(lone.values())
        assert max(sends.values()) - min(sends.values()) <= 2, "one came before the lock was known"


def test_questions_do_not_grow_with_the_calls():
    counts = [one_record(1, shared=True, draw=LOCKS["constant 5"], callers=n, spread=0.0).calls for n in (50, 1000)]
    assert counts[0] <= 2 * 50 + 8
    assert counts[1] <= 2 * 1000 + 9, "each call that nobody could warn, its write, and the questions"
