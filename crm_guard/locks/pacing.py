"""When to ask CRM again about locked records. Pure arithmetic; all times are in seconds.

To ask costs a call, worth `c`. If `n` calls wait and one of them asks every `t` seconds, a second costs
`c / t + n * t / 2`, which is least at `t = sqrt(2 * c / n)`. A lone call waits its own delay `d`: `c = d**2 / 2`,
and `n` calls ask once `n * t**2 = d**2`, hence every `d / sqrt(n)`. Several records are asked about together once
their `n * t**2` add up to `d**2`. A call that needs `m` records is `1 / m` of a call for each of them.
Lower bound: `d / 4.5`, but 0.5 s at least, as an answer takes about 0.2 s; or `d` itself if that is shorter.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_OFTEN: Final = 4.5
"""How many times as often as a lone call many calls ask. A share of `d`, as `d` is random: else all hosts, who hear
of a refusal in the same instant, would ask in the same instant too."""
_SHORTEST: Final = 0.5
"""Seconds, at least, between two questions, unless a lone call waits less."""


def due(delay: float, start: float, records: Iterable[tuple[float, float]]) -> float:
    """Return the instant at which a call should ask.

    Args:
        delay: Seconds that it would wait if it were alone.
        start: Instant at which its wait began.
        records: For each record, how many calls need it, and the instant of the most recent answer about it. At
            least one.
    """
    most = (delay / shortest(delay)) ** 2 if delay > 0 else 1.0
    weight = first = second = 0.0  # sums of n, n * s and n * s**2, where s is counted from `start`
    for calls, since in records:
        n, s = min(calls, most), since - start
        weight += n
        first += n * s
        second += n * s * s
    spare = first * first - weight * (second - delay * delay)
    t = (first + sqrt(max(spare, 0.0))) / weight
    return start + max(t, shortest(delay))


def shortest(delay: float) -> float:
    """Return the shortest time between two questions, and for which an answer under way is awaited."""
    return min(delay, max(_SHORTEST, delay / _MOST_OFTEN))
