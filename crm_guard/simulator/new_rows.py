"""Rows of create and upsert that are refused for a while before they become records."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from .causes import Cause
    from .messages import Json


@dataclass(kw_only=True)
class NewRefusal:
    """One plan of :meth:`Engine.refuse_new`, returned so that a test can ask how often it struck.

    Attributes:
        module: API name of the module.
        cause: Why its new rows are refused.
        where: Whether it concerns a row, given as the JSON object of the request; `None` for every row.
        refusals: Refusals of each row before that row is accepted; `None` for no such end.
        until: Instant at which it ends, in seconds on the clock; `None` for no such end.
        counts: Rows, as JSON, to their refusals so far. Equal rows share a count.
        refused: Refusals so far, of all rows together.
    """

    module: str
    cause: Cause
    where: Callable[[Json], bool] | None = None
    refusals: int | None = None
    until: float | None = None
    counts: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def strikes(self, module: str, row: Json, now: float) -> bool:
        """Return whether this new row is refused, and count it."""
        key = json.dumps(row, sort_keys=True)
        if not self._concerns(module, row) or self._is_over(key, now):
            return False
        self.counts[key] += 1
        self.refused += 1
        return True

    def _concerns(self, module: str, row: Json) -> bool:
        return module == self.module and (self.where is None or self.where(row))

    def _is_over(self, key: str, now: float) -> bool:
        late = self.until is not None and now >= self.until
        return late or (self.refusals is not None and self.counts[key] >= self.refusals)

    def __deepcopy__(self, _memo: object) -> Self:
        """Return a copy with counts of its own: what `where` holds need not be copyable."""
        return replace(self, counts=Counter(self.counts))
