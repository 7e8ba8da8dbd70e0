"""`crm-guard simulate`: serves the simulator on a port until a signal stops it."""

from __future__ import annotations

import contextlib
import errno
import json
import shlex
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from crm_guard._base.codes import CLIENT_ERROR
from crm_guard.cli.plain import CommandError, harmless
from crm_guard.cli.terminal import make_console
from crm_guard.simulator import Reply, Request, Simulator, State
from crm_guard.simulator.control import PREFIX
from crm_guard.simulator.forms import OPTIONS
from crm_guard.simulator.inputs import SECONDS, InputError, read_object
from crm_guard.simulator.seeds import Seed, load_seed
from crm_guard.simulator.server import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rich.console import Console

    from crm_guard.simulator import Engine

_POLL_SECONDS: Final = 0.5
_PICTURE: Final = b"\x89PNG\r\n\x1a\n" + bytes(64)
_SAMPLES_SHOWN: Final = 2
_SAMPLES: Final = 2
_USAGE_ERROR: Final = 2
_DEFAULTS: Final[Mapping[str, Any]] = {"validation_seconds": 10.0}

_STATES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("free", {}),
    ("locked by Zia's check", {"state": State.ZIA_VISION_VALIDATION}),
    ("rejected by Zia", {"state": State.ZIA_VISION_REJECTED}),
    ("record in approval", {"state": State.ZIA_VISION_PENDING}),
    ("image in approval", {"image_state": State.ZIA_IMAGE_PENDING}),
    ("in an approval process", {"state": State.APPROVAL_PROCESS_PENDING}),
    ("in review", {"state": State.REVIEW_PROCESS_PENDING}),
    ("record locking", {"state": State.RECORD_LOCKING}),
    ("in a merge", {"state": State.MERGE_PENDING}),
)


class _LoggedSimulator(Simulator):
    """A simulator that reports each call once it is answered."""

    def __init__(self, on_call: Callable[[Request, Reply], None], **options: Any) -> None:
        super().__init__(**options)
        self._on_call = on_call

    def handle(self, request: Request, *, hold: Callable[[float], object] | None = None) -> Reply:
        reply = super().handle(request, hold=hold)
        self._on_call(request, reply)
        return reply


@dataclass
class _Start:
    """What the CRM holds at the start, and again after a reset: a start state, and sample Leads.

    Attributes:
        seed: Start state.
        records: Sample Leads in each state.
        locked_for: Seconds for which locked samples stay locked.
        samples: Ids of the samples by what they are, once they were added.
    """

    seed: Seed
    records: int
    locked_for: float
    samples: dict[str, list[str]] = field(default_factory=dict)

    def plant(self, engine: Engine) -> None:
        """Fill an empty CRM."""
        self.seed.plant(engine)
        self.samples = {name: self._add_leads(engine, planted) for name, planted in _STATES if self.records}

    def _add_leads(self, engine: Engine, planted: dict[str, Any]) -> list[str]:
        lock = {"locked_for": self.locked_for} if planted.get("state") is State.ZIA_VISION_VALIDATION else {}
        about = {"fields": {"Last_Name": "Rowland", "Company": "Zylker"}, "image": _PICTURE, **planted, **lock}
        return [engine.add_record("Leads", **about) for _ in range(self.records)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What `crm-guard simulate` is told.

    Attributes:
        host: Address or name to listen on.
        port: TCP port; 0 takes a free one.
        seed: File with a start state, or `None`.
        records: Sample Leads in each state; `None` for 2, or none if there is a start state.
        locked_for: Seconds from the start for which locked samples stay locked.
        quiet: Do not log calls.
        options: Options of `Simulator` that were given; they go before those of the start state.
    """

    host: str
    port: int
    seed: Path | None
    records: int | None
    locked_for: float
    quiet: bool
    options: Mapping[str, Any]

    def checked(self) -> tuple[_Start, Mapping[str, Any]]:
        """Return what the CRM is to hold, and all options that do not keep their defaults.

        Raises:
            CommandError: The start state or an option is not allowed.
        """
        try:
            given = read_object(self.options, OPTIONS)
            read_object({"locked_for": self.locked_for}, {"locked_for": SECONDS})
            planted = Seed() if self.seed is None else load_seed(self.seed)
        except InputError as error:
            raise CommandError(harmless(str(error)), _USAGE_ERROR) from error
        fallback = _SAMPLES if self.seed is None else 0
        start = _Start(planted, fallback if self.records is None else self.records, self.locked_for)
        return start, {**_DEFAULTS, **planted.options, **given}


def run_simulate(order: Simulation, *, as_document: bool) -> None:
    """Run a simulator until SIGINT or SIGTERM.

    Args:
        order: What was told.
        as_document: Print one line of JSON when the simulator answers, and nothing else.

    Raises:
        CommandError: The start state or an option is not allowed, or the address is not available.
    """
    console = make_console()
    start, options = order.checked()
    log = _no_log if order.quiet or as_document else _call_logger(console)
    crm = _LoggedSimulator(log, host=order.host, port=order.port, control=True, plant=start.plant, **options)
    with _stop_signal() as stop:
        _listen(crm, order.host, order.port)
        try:
            if as_document:
                _announce(crm, start)
            else:
                _introduce(console, crm, start)
            while not stop.wait(_POLL_SECONDS):
                pass
        finally:
            crm.stop()
    if not as_document:
        console.print(f"stopped; calls answered: {crm.answered}")


def _listen(crm: Simulator, host: str, port: int) -> None:
    if not host:
        message = "--host is empty: give an address or name to listen on, such as 127.0.0.1"
        raise CommandError(message, _USAGE_ERROR)
    try:
        crm.start()
    except (OSError, UnicodeError) as error:
        busy = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        what = f"port {port}" if busy else f"host {harmless(host)}"
        message = f"{what} is not available: {getattr(error, 'strerror', None) or error}"
        raise CommandError(message) from error
    if not is_loopback(host):
        warning = f"warning: --host {harmless(host)}: whoever reaches this port may read and change everything"
        sys.stderr.write(f"crm-guard: {warning}\n")


def _announce(crm: Simulator, start: _Start) -> None:
    document = {"url": crm.url, "control": crm.url + PREFIX, "samples": start.samples}
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _introduce(console: Console, crm: Simulator, start: _Start) -> None:
    what = "Leads:" if start.samples else f"Records: {len(crm.records)}."
    console.print(Text.assemble("Zoho CRM simulator on ", (crm.url, "bold cyan"), f" (Ctrl-C stops it). {what}"))
    if start.samples:
        console.print()
        console.print(_table(start))
    how = f"To add, lock and count records, and plan faults: curl {crm.url}{PREFIX} shows how."
    console.print(f"\n{how}", soft_wrap=True)
    console.print("\nTry:", style="bold")
    console.print(_curl(crm, start), end="\n\n", soft_wrap=True)


def _table(start: _Start) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, ids in start.samples.items():
        more = f" and {len(ids) - _SAMPLES_SHOWN} more" if len(ids) > _SAMPLES_SHOWN else ""
        lasts = f" for {start.locked_for:g} s" if name.startswith("locked") else ""
        table.add_row(f"{name}{lasts}", Text(", ".join(ids[:_SAMPLES_SHOWN]) + more))
    return table


def _curl(crm: Simulator, start: _Start) -> str:
    if not start.samples:
        return f'curl {crm.url}{PREFIX}/records -d \'{{"module": "Leads", "locked_for": {start.locked_for:g}}}\''
    lead = start.samples["locked by Zia's check"][0]
    token = next(iter(crm.tokens or ()), None)
    header = f" -H {shlex.quote(f'Authorization: Zoho-oauthtoken {token}')}" if token else ""
    return f'curl -X PUT {crm.url}/crm/v8/Leads/{lead}{header} -d \'{{"data": [{{"Company": "Zylker"}}]}}\''


def _no_log(_request: Request, _reply: Reply) -> None:
    """Stay quiet."""


def _call_logger(console: Console) -> Callable[[Request, Reply], None]:
    def log(request: Request, reply: Reply) -> None:
        style = "green" if reply.status < CLIENT_ERROR else "red"
        line = Text.assemble((f"{reply.status:>3}", style), f" {request.method:<6} {harmless(request.path)}")
        console.print(line, soft_wrap=True)

    return log


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
