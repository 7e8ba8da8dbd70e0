"""`crm-guard simulate`: serves the simulator on a port until a signal stops it."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from crm_guard._base.codes import CLIENT_ERROR
from crm_guard.cli.terminal import CommandError, harmless, make_console
from crm_guard.simulator import Reply, Request, Simulator, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

_POLL_SECONDS: Final = 0.5
_PICTURE: Final = b"\x89PNG\r\n\x1a\n" + bytes(64)
_SAMPLES_SHOWN: Final = 2

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


def run_simulate(*, records: int, locked_for: float, quiet: bool, **options: Any) -> None:
    """Run a simulator with sample records until SIGINT or SIGTERM.

    Args:
        records: Leads in each state.
        locked_for: Seconds from the start for which locked Leads stay locked.
        quiet: Do not log calls.
        **options: Arguments of `Simulator`, such as `port` and `token`.

    Raises:
        CommandError: The port is not available.
    """
    console = make_console()
    crm = _LoggedSimulator((lambda _request, _reply: None) if quiet else _call_logger(console), **options)
    samples = {name: _add_leads(crm, records, planted, locked_for) for name, planted in _STATES}
    with _stop_signal() as stop:
        _start(crm, options["port"])
        try:
            _introduce(console, crm, samples, locked_for)
            while not stop.wait(_POLL_SECONDS):
                pass
        finally:
            crm.stop()
    console.print(f"stopped; calls answered: {crm.answered}")


def _start(crm: Simulator, port: int) -> None:
    try:
        crm.start()
    except OSError as error:
        message = f"port {port} is not available: {error.strerror or error}"
        raise CommandError(message) from error


def _add_leads(crm: Simulator, count: int, planted: dict[str, Any], locked_for: float) -> list[str]:
    lock = {"locked_for": locked_for} if planted.get("state") is State.ZIA_VISION_VALIDATION else {}
    about = {"fields": {"Last_Name": "Rowland", "Company": "Zylker"}, "image": _PICTURE, **planted, **lock}
    return [crm.add_record("Leads", **about) for _ in range(count)]


def _introduce(console: Console, crm: Simulator, samples: dict[str, list[str]], locked_for: float) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, ids in samples.items():
        more = f" and {len(ids) - _SAMPLES_SHOWN} more" if len(ids) > _SAMPLES_SHOWN else ""
        lasts = f" for {locked_for:g} s" if name.startswith("locked") else ""
        table.add_row(f"{name}{lasts}", Text(", ".join(ids[:_SAMPLES_SHOWN]) + more))
    console.print(Text.assemble("Zoho CRM simulator on ", (crm.url, "bold cyan"), " (Ctrl-C stops it). Leads:\n"))
    console.print(table)
    console.print("\nTry:", style="bold")
    console.print(_curl(crm, samples["locked by Zia's check"][0]), end="\n\n", soft_wrap=True)


def _curl(crm: Simulator, lead: str) -> str:
    token = next(iter(crm.tokens or ()), None)
    header = f" -H 'Authorization: Zoho-oauthtoken {token}'" if token else ""
    return f'curl -X PUT {crm.url}/crm/v8/Leads/{lead}{header} -d \'{{"data": [{{"Company": "Zylker"}}]}}\''


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
