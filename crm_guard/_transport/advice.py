"""Warnings for the program that uses the guard, at its own line."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from crm_guard._base.imports import first_import
from crm_guard._transport.retries import warning_about

if TYPE_CHECKING:
    from requests.adapters import BaseAdapter


def warn(message: str) -> None:
    """Warn, at the line of the program that called us, be it through `requests`."""
    with first_import:
        import inspect  # noqa: PLC0415 (costs more than the guard does, and is rarely needed)

    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("crm_guard", "requests"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def warn_of_multiplied_sends(*layers: BaseAdapter | None) -> bool:
    """Warn, once, if a layer below the guard repeats by status and may repeat a write; return whether it may."""
    text = next(filter(None, (warning_about(getattr(layer, "max_retries", None)) for layer in layers)), "")
    if text:
        warn(text)
    return bool(text)
