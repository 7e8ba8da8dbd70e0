"""What the markers of a test say: settings of its guard, options of its CRM."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from crm_guard.settings import GuardSettings, SettingsError, load_settings
from crm_guard.simulator import EngineOptions, Options

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest


def marked_settings(marks: Iterable[pytest.Mark]) -> GuardSettings:
    """Return the settings that markers give, whatever the environment says.

    Args:
        marks: The nearest first: of two values of a setting it wins.

    Raises:
        SettingsError: A setting is unknown, or has a value that is not allowed; or a marker has an argument that
            is no keyword.
    """
    try:
        return load_settings(_merged(marks), env={})
    except ValueError as error:  # raised anew without its cause, which may quote a value
        reason = str(error).removeprefix("mapping: ")
    message = f"@pytest.mark.crm_guard: {reason}"
    raise SettingsError(message)


def marked_options(marks: Iterable[pytest.Mark]) -> EngineOptions:
    """Return the options of the simulator that markers give.

    Args:
        marks: The nearest first: of two values of an option it wins.

    Raises:
        ValueError: An option is unknown, or has a value that is not allowed; or a marker has an argument that is
            no keyword.
    """
    try:
        found = _merged(marks)
        _check_names(found)
        Options(**found)
    except (TypeError, ValueError) as error:
        message = f"@pytest.mark.zoho_crm: {error}"
        raise ValueError(message) from None
    return cast("EngineOptions", found)


def _merged(marks: Iterable[pytest.Mark]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mark in reversed(list(marks)):
        if mark.args:
            message = f"takes keyword arguments alone, not {len(mark.args)} by position"
            raise ValueError(message)
        found |= mark.kwargs
    return found


def _check_names(given: Iterable[str]) -> None:
    allowed = sorted(EngineOptions.__annotations__.keys() - {"clock"})
    for name in given:
        if name == "clock":
            message = "the clock is that of the fixture zoho_clock"
            raise ValueError(message)
        if name not in allowed:
            guess = "".join(f", did you mean {near}?" for near in get_close_matches(name, allowed, 1)) or "."
            message = f"unknown option {name!r}{guess} Allowed: {', '.join(allowed)}"
            raise ValueError(message)
