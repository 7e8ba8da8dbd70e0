"""Puts a writer together: its guard, its policy, where its rows go, its scheduler and its threads."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crm_guard._bulk.courier import Courier
from crm_guard._bulk.crew import Crew
from crm_guard._bulk.gate import SharedGate
from crm_guard._bulk.options import check_number
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.record_outcomes import Judge
from crm_guard._protocol.scheduling.scheduler import Scheduler
from crm_guard._protocol.scheduling.target import Target
from crm_guard._transport.retries import unsafe_repeats
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
    mounted = session.get_adapter(url)
    if isinstance(mounted, GuardAdapter):
        guard, may_repeat = mounted, repeats(mounted)
        policy = guard.settings if settings is None else _policy(settings)
    else:
        policy = _policy(settings)
        guard = GuardAdapter(policy, inner=mounted)
        may_repeat = bool(unsafe_repeats(getattr(mounted, "max_retries", None)))
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
    courier = Courier(session, guard, context, target, judge, timeout=timeout, repeats=may_repeat)
    crew = Crew(scheduler, courier, context.clock, workers)
    gate.woken = crew.look_at
    return Assembly(context, target, scheduler, crew, batch_size, workers)


def _policy(settings: GuardSettings | Source) -> GuardSettings:
    return settings if isinstance(settings, GuardSettings) else load_settings(settings)


def _external_field(session: Session) -> str | None:
    """Return the field whose values name the records, as the session's header `X-EXTERNAL: Module.Field` says."""
    given = session.headers.get(_EXTERNAL)
    text = given.decode("latin-1") if isinstance(given, bytes) else given
    return text.rpartition(".")[2].strip() if text else None
