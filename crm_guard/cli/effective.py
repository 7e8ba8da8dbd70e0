"""`crm-guard settings`: the effective settings and the origin of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from crm_guard.cli.terminal import make_console, write_json
from crm_guard.settings import origins

if TYPE_CHECKING:
    from pathlib import Path


def run_settings(source: Path | None, *, as_document: bool) -> None:
    """Print the settings that a guard would use in this environment.

    Raises:
        SettingsError: A setting is unknown or its value is invalid.
    """
    found = origins(source)
    if as_document:
        write_json({name: {"value": _plain(value), "origin": origin} for name, (value, origin) in found.items()})
    else:
        make_console().print(_table(found))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _table(found: dict[str, tuple[Any, str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("origin", overflow="fold")
    for name, (value, origin) in found.items():
        style = "dim" if origin == "default" else "cyan"
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        table.add_row(name, Text(shown), Text(origin, style))
    return table
