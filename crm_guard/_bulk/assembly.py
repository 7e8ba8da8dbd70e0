"""Puts a writer together: its guard, its policy, where its rows go, its scheduler and its threads."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crm_guard._bulk.announcer import Announcer
from crm_guard._bulk.courier import Courier
from crm_guard._bulk.crew import Crew
from crm_guard._bulk.gate import SharedGate
from crm_guard._bulk.options import check_number
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.record_outcomes import Judge
from crm_guard._protocol.scheduling.scheduler import Scheduler
from crm_guard._protocol.scheduling.target import Target
from crm_guard._transport.telling import Telling
from crm_guard.adapter import GuardAdapter, repeats, usable_context
from crm_guard.settings import GuardSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from requests import Session

    from crm_guard._transport.context import Context
    from crm_guard.settings import Source

_EXTERNAL: Final = "X-EXTERNAL"


class Assembly(NamedTuple):
    """The parts of one writer."""

    context: Context
    target: Target
    scheduler: Scheduler
    crew: Crew
    announcer: Announcer
    batch_size: int
    workers: int


def assemble(
    session: Session,
    method: str,
    url: str,
    *,
    body: Mapping[str, Any] | None,
    batch_size: int,
    workers: int,
    key: Callable[[Any], Hashable] | None,
    timeout: Any,
    settings: GuardSettings | Source,
) -> Assembly:
    """Put a writer together. Sends nothing.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
        ValueError: The call takes no rows, or an argument does not fit it.
    """
    guard, policy = _guard_of(session, url, settings)
    context = usable_context(guard)
    address = CrmUrl(url, guard.tail_of(url))

    target = Target(method, address, body, external=_external_field(session), key=key)
    check_number("batch_size", batch_size, target.most)
    judge = Judge(target.template, policy.retry_actions, address.version)

    gate = SharedGate(context.locks, context.clock, address.origin)
    scheduler = Scheduler(
        target,
        judge,
        policy,
        random.random,
        batch_size=batch_size,
        workers=workers,
        gate=gate,
        renews=guard.refresh is not None,
    )
    courier = Courier(session, guard, context, target, judge, timeout=timeout, repeats=repeats(guard))
    announcer = Announcer(Telling(context.hooks, address.origin), scheduler.newsroom)
    crew = Crew(scheduler, courier, announcer, context.clock, workers, batch_size)
    gate.woken = crew.look_at
    return Assembly(context, target, scheduler, crew, announcer, batch_size, workers)


def _guard_of(session: Session, url: str, settings: GuardSettings | Source) -> tuple[GuardAdapter, GuardSettings]:
    """Return the guard that a session sends through, or one around the session's adapter, and the policy."""
    mounted = session.get_adapter(url)
    if not isinstance(mounted, GuardAdapter):
        policy = _policy(settings)
        return GuardAdapter(policy, inner=mounted), policy
    return mounted, mounted.settings if settings is None else _policy(settings)


def _policy(settings: GuardSettings | Source) -> GuardSettings:
    return settings if isinstance(settings, GuardSettings) else load_settings(settings)


def _external_field(session: Session) -> str | None:
    """Return the field whose values name the records, as the session's header `X-EXTERNAL: Module.Field` says."""
    given = session.headers.get(_EXTERNAL)
    text = given.decode("latin-1") if isinstance(given, bytes) else given
    return text.rpartition(".")[2].strip() if text else None
