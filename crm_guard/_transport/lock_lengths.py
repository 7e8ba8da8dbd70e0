"""How long to wait before asking again, given how long locks have lasted so far.

How long Zia holds a record is published nowhere, so the plain schedule (exponential, capped, jittered) has to suit
every length. Where locks turn out to last about the same, the guard can do better: ask once, just after the usual
end. Where they do not, a guess buys fewer calls with longer delays, so then the plain schedule stays.

That is the whole rule: of the lengths seen that exceed what this call has already waited, take the 10th and the
90th percentile. If they lie closer together than 0.8 of the plain wait, the end is known more exactly than the
plain wait would find it: wait until the 80th. Otherwise, or with fewer than 5 lengths seen, wait the plain time.
A learnt wait lies between a third of the plain one and three times it; the caller keeps it below `wait_max`.

Simulated lone callers (`tests/benchmarks/waits.py`; calls with the first one, 95th percentile of the delay after
the unlock in seconds; plain means 3 s, growing by 1.2 up to 5 s, 20 % jitter: the default settings):

=============================  ==========  ===========  ============
policy                         constant 5  lognormal 5  bimodal 2/30
=============================  ==========  ===========  ============
tenacity, full jitter, max 10  5.08  7.00  5.17  7.12   7.07  7.09
urllib3, backoff_factor=1      4.00  2.00  4.11  7.72   4.52  1.00
plain 1..8 s, growing by 1.5   5.00  2.74  4.88  4.68   5.94  4.24
plain 3..8 s, growing by 1.2   3.00  1.40  3.42  3.94   4.91  5.19
plain                          3.00  1.40  3.43  3.74   5.43  3.26
learning always, median        2.52  0.95  2.79  4.01   4.81  3.00
learning where certain (this)  2.23  1.01  3.41  3.76   4.97  1.23
=============================  ==========  ===========  ============

Learning without the test of certainty pays on lognormal and bimodal lengths, in delay, for the calls it saves.
Short first waits pay everywhere. (urllib3's schedule happens to hit a lock of 30 s, its waits doubling from 1 s.)
A length is counted from a call's first refusal to its success, which is what the next call has to wait, too.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ENOUGH = 5
_CERTAIN = 0.8
_RANGE = 3.0
_JITTER = 0.1


def next_wait(seen: Iterable[float], *, elapsed: float, plain: float, u: float) -> float:
    """Return the seconds to wait before the next call. Pure.

    Args:
        seen: Lengths of earlier locks, in seconds.
        elapsed: Seconds since this call was first refused.
        plain: Seconds that the plain schedule would wait now, jitter included.
        u: A random number, 0 <= u < 1: a learnt wait is shortened by up to 10 %.
    """
    lengths = list(seen)
    left = sorted(length - elapsed for length in lengths if length > elapsed)
    if len(lengths) < _ENOUGH or len(left) < _ENOUGH:
        return plain
    low, high, aim = (left[int(share * (len(left) - 1))] for share in (0.1, 0.9, 0.8))
    if high - low > _CERTAIN * plain:
        return plain
    return min(max(aim * (1 - _JITTER * u), plain / _RANGE), plain * _RANGE)


class LockLengths:
    """Remembers the last lock lengths of each origin. Thread-safe, bounded.

    Args:
        size: How many lengths are kept per origin.
        origins: How many origins are kept; the one unused for longest goes first.
    """

    def __init__(self, size: int = 64, origins: int = 64) -> None:
        self._size, self._origins = size, origins
        self._mutex = threading.Lock()
        self._seen: dict[str, deque[float]] = {}

    def __reduce__(self) -> tuple[type[LockLengths], tuple[int, int]]:
        return type(self), (self._size, self._origins)

    def observe(self, origin: str, seconds: float) -> None:
        """Note that a record of `origin` was free `seconds` after its first refusal."""
        with self._mutex:
            lengths = self._seen.pop(origin, None)
            self._seen[origin] = lengths if lengths is not None else deque(maxlen=self._size)
            self._seen[origin].append(seconds)
            if len(self._seen) > self._origins:
                del self._seen[next(iter(self._seen))]

    def next_wait(self, origin: str, *, elapsed: float, plain: float, u: float) -> float:
        """Return the seconds to wait before the next call to `origin`; see :func:`next_wait`."""
        with self._mutex:
            seen = tuple(self._seen.get(origin, ()))
        return next_wait(seen, elapsed=elapsed, plain=plain, u=u)
