"""Remember which tokens lack the scope to read a module, so that a diagnosis is not refused twice."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crm_guard._protocol.approval_probe import Probe


class ScopeMemory:
    """The refused pairs of token and module: such a probe is refused once and not every time.

    Keeps keyed digests, never a token, and at most `limit` of them: the least recently used is dropped first.
    Thread-safe. A copy or an unpickled one starts empty.
    """

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._salt = secrets.token_bytes(16)
        self._mutex = threading.Lock()
        self._refused: OrderedDict[bytes, None] = OrderedDict()

    def refuse(self, probe: Probe) -> None:
        """Remember that the probe's token may not read its module at its host."""
        key = self._key(probe)
        with self._mutex:
            self._refused[key] = None
            self._refused.move_to_end(key)
            if len(self._refused) > self._limit:
                self._refused.popitem(last=False)

    def knows(self, probe: Probe) -> bool:
        """Return whether a probe with this token and module was refused before."""
        key = self._key(probe)
        with self._mutex:
            known = key in self._refused
            if known:
                self._refused.move_to_end(key)
            return known

    def _key(self, probe: Probe) -> bytes:
        token = next((value for name, value in probe.headers if name.lower() == "authorization"), "")
        target = probe.url.partition("?")[0]
        text = f"{target}\n{token}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._salt, digest_size=16).digest()

    def __reduce__(self) -> tuple[type[ScopeMemory], tuple[int]]:
        return type(self), (self._limit,)
