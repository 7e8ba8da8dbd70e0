"""What the calls of one guard have in common, and how their requests are sent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from crm_guard._transport.scopes import ScopeMemory
from crm_guard.clock import Stops

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from requests import PreparedRequest, Response
    from urllib3 import HTTPResponse

    from crm_guard._transport.tap import Tap
    from crm_guard.clock import Clock
    from crm_guard.events import GuardHook
    from crm_guard.locks import LockRegistry
    from crm_guard.settings import GuardSettings


@dataclass(frozen=True, slots=True)
class Context:
    """The state of one guard, and of those over other inner adapters that share it. Thread-safe.

    Attributes:
        settings: The policy.
        hooks: Called with each event.
        refresh: Called with a copy of the request before each resend, to renew its credentials.
        clock: Source of time.
        locks: Where calls share what they know of a lock.
        stops: Ends the waits of all calls.
        scopes: What tokens may not read.
        late: The threads of diagnoses that did not end in time, by origin.
    """

    settings: GuardSettings
    hooks: tuple[GuardHook, ...]
    refresh: Callable[[PreparedRequest], object] | None
    clock: Clock
    locks: LockRegistry
    stops: Stops = field(default_factory=Stops)
    scopes: ScopeMemory = field(default_factory=ScopeMemory)
    late: dict[str, threading.Thread] = field(default_factory=dict)

    def for_child(self) -> Context:
        """Return the context for a forked process. A lock registry resets itself."""
        return replace(self, stops=Stops(), scopes=ScopeMemory(), late={})


class Channel(NamedTuple):
    """How the requests of one call are sent, and its result is made.

    Attributes:
        transmit: Sends once, without looking at the answer; takes the keyword arguments of `HTTPAdapter.send`.
        tapped: Returns such a function whose connections a `Tap` watches.
        build_response: That of the adapter.
        repeats: Whether it may repeat what CRM may have applied, so that its error is only about the last try.
    """

    transmit: Callable[..., Response]
    tapped: Callable[[Tap], Callable[..., Response]]
    build_response: Callable[[PreparedRequest, HTTPResponse], Response]
    repeats: bool
