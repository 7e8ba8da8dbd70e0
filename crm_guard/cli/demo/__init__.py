"""`crm-guard demo`: runs jobs and a bulk update against a simulated CRM, shows them live and checks the result."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
from rich.live import Live
from rich.text import Text

from crm_guard.cli.demo.board import Board, Lines, Rows
from crm_guard.cli.demo.bulk import Bulk, run_bulk
from crm_guard.cli.demo.checks import Day, check_day
from crm_guard.cli.demo.crew import Crew
from crm_guard.cli.demo.metrics import MetricsPage
from crm_guard.cli.demo.opening import show_opening
from crm_guard.cli.demo.plan import Planner
from crm_guard.cli.demo.summary import announce_bulk, document, show_bulk, show_checks, show_day, show_unguarded
from crm_guard.cli.demo.unguarded import Twins
from crm_guard.cli.plain import CommandError
from crm_guard.cli.terminal import make_console, write_json
from crm_guard.settings import GuardSettings, load_settings
from crm_guard.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from crm_guard.cli.demo.board import Row
    from crm_guard.cli.demo.checks import Check
    from crm_guard.cli.demo.plan import Job
    from crm_guard.cli.demo.unguarded import Unguarded
    from crm_guard.simulator import EngineOptions

MOST_RECORDS: Final = 500
MOST_ROWS: Final = 100_000
_UPLOAD_CHECK_SECONDS: Final = 2.0
_FRAMES_PER_SECOND: Final = 10
_FAILED: Final = 1
_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Options of the demo.

    Attributes:
        seed: Seed of the plan.
        records: Number of single-record jobs.
        rows: Number of rows of the bulk update.
        speed: Divisor of the durations of locks and waits.
        metrics: Whether Prometheus metrics are served meanwhile, and shown at the end.
    """

    seed: int
    records: int
    rows: int
    speed: float
    metrics: bool = False


def run_demo(demo: Demo, *, as_document: bool) -> int:
    """Run the demo and return its exit status.

    Raises:
        CommandError: It was interrupted, or metrics cannot be served.
        SettingsError: A setting in the environment is invalid.
    """
    if not demo.metrics:
        return _run_demo(demo, None, as_document=as_document)
    with MetricsPage() as page:
        return _run_demo(demo, page, as_document=as_document)


def _run_demo(demo: Demo, page: MetricsPage | None, *, as_document: bool) -> int:
    settings = _scaled(load_settings(), demo.speed)
    console = None if as_document else make_console()
    if page is not None and console is not None:
        console.print(f"Metrics while it runs: {page.url}\n", soft_wrap=True)
    try:
        with Twins(seed=demo.seed, records=demo.records, speed=demo.speed, options=_options(demo)) as twins:
            day = _run_day(demo, settings, console)
            bulk = _run_bulk(demo, settings, console)
            unguarded = twins.results()
    except KeyboardInterrupt:
        message = "interrupted"
        raise CommandError(message, _INTERRUPTED) from None
    checks = (*check_day(day), bulk.check())
    if console is None:
        found = document(day, bulk, checks, unguarded, seed=demo.seed, speed=demo.speed)
        write_json(found if page is None else {**found, "metrics": page.read()})
    else:
        _conclude(checks, unguarded, page, console, speed=demo.speed)
    return 0 if all(check.held for check in checks) else _FAILED


def _options(demo: Demo) -> EngineOptions:
    """Return the options of every simulator of the day."""
    return {"seed": demo.seed, "shuffle": True, "validation_seconds": _UPLOAD_CHECK_SECONDS / demo.speed}


def _run_day(demo: Demo, settings: GuardSettings, console: Console | None) -> Day:
    with Simulator(**_options(demo)) as crm:
        jobs = Planner(crm, random.Random(demo.seed), demo.speed).plan(demo.records)
        crew = Crew(crm, settings)
        if console is None:
            return _run(jobs, crew, Rows(jobs), lambda _row: None)
        show_opening(jobs, console, seed=demo.seed)
        run = _run_live if console.is_interactive else _run_in_lines
        day = run(jobs, crew, console)
    show_day(day, console)
    return day


def _run_bulk(demo: Demo, settings: GuardSettings, console: Console | None) -> Bulk:
    if console is None:
        return run_bulk(demo.rows, settings, seed=demo.seed, speed=demo.speed, shows=False)
    announce_bulk(demo.rows, console)
    bulk = run_bulk(demo.rows, settings, seed=demo.seed, speed=demo.speed, shows=True)
    show_bulk(bulk, console)
    return bulk


def _conclude(
    checks: Sequence[Check],
    unguarded: Sequence[Unguarded],
    page: MetricsPage | None,
    console: Console,
    *,
    speed: float,
) -> None:
    show_checks(checks, console)
    if page is not None:
        console.print(Text(f"\n{page.read()}"), soft_wrap=True)
    show_unguarded(unguarded, console, speed=speed)


def _scaled(settings: GuardSettings, speed: float) -> GuardSettings:
    """Return the user's settings with shorter waits, and with the values that the checks rely on."""
    return msgspec.structs.replace(
        settings,
        wait_initial=settings.wait_initial / speed,
        wait_max=settings.wait_max / speed,
        raise_on="failure",
        diagnose=True,
    )


def _run_in_lines(jobs: tuple[Job, ...], crew: Crew, console: Console) -> Day:
    lines = Lines(jobs, console)
    lines.tell_columns()
    return _run(jobs, crew, lines.rows, lines.tell_end)


def _run_live(jobs: tuple[Job, ...], crew: Crew, console: Console) -> Day:
    rows = Rows(jobs)
    with Live(
        Board(rows), console=console, refresh_per_second=_FRAMES_PER_SECOND, transient=True, redirect_stderr=False
    ):
        day = _run(jobs, crew, rows, lambda _row: None)
    console.print(Board(rows, whole=True))
    return day


def _run(jobs: tuple[Job, ...], crew: Crew, rows: Rows, on_finished: Callable[[Row], None]) -> Day:
    started = time.monotonic()
    results = crew.work(jobs, rows, on_finished)
    return Day(
        results=results,
        seconds=time.monotonic() - started,
        calls=crew.crm.calls,
        writes=dict(crew.crm.write_counts),
        refusals={record_id: crew.crm.refusals(record_id) for job in jobs for record_id in job.ids},
        records=crew.crm.records,
    )
