"""The keyword arguments of `GuardAdapter`, `mount_guard`, `install` and `load_settings`: names, types, checks.

Type checkers read the classes; at run time :func:`check_options` suggests the correct form of a wrong argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

from crm_guard._base.registry_url import MAY_BE_URL
from crm_guard.settings import SettingsOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from requests import PreparedRequest
    from requests.adapters import BaseAdapter
    from urllib3 import Retry

    from crm_guard.clock import Clock
    from crm_guard.events import GuardHook
    from crm_guard.locks import LockRegistry


class StockOptions(TypedDict, total=False):
    """The arguments of `requests.adapters.HTTPAdapter`."""

    pool_connections: int
    pool_maxsize: int
    max_retries: Retry | int | None
    pool_block: bool


class OwnOptions(TypedDict, total=False):
    """The further arguments of `GuardAdapter`, other than its settings."""

    hooks: Iterable[GuardHook]
    lock_registry: LockRegistry | None
    refresh: Callable[[PreparedRequest], object] | None
    clock: Clock | None
    inner: BaseAdapter | None


class AdapterOptions(StockOptions, OwnOptions, total=False):
    """Every keyword argument of `GuardAdapter` except its settings."""


_NAMES: Final = ("settings", *sorted(AdapterOptions.__optional_keys__))
_SETTINGS: Final = SettingsOptions.__optional_keys__


def split_positional(given: tuple[Any, ...], settings: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the settings and the stock arguments of `GuardAdapter(*given, settings=settings)`.

    Raises:
        TypeError: More than the settings is given by position, or they are given twice.
    """
    if not given or (isinstance(given[0], int) and not isinstance(given[0], bool)):
        return settings, given
    if len(given) > 1:
        message = (
            "GuardAdapter takes either its settings by position and all else by name, or what HTTPAdapter does, "
            "a number first: pool_connections, pool_maxsize, max_retries, pool_block"
        )
        raise TypeError(message)
    if settings is not None:
        message = "GuardAdapter got its settings twice, by position and by name"
        raise TypeError(message)
    return given[0], ()


def check_options(given: Mapping[str, Any], call: str) -> None:
    """Reject keyword arguments that the guard does not have.

    Args:
        given: The arguments.
        call: The call up to where `settings=` would go, like `"mount_guard(session, "`.

    Raises:
        TypeError: One of them is a setting, or unknown. The message says what to write instead.
    """
    misplaced = {name: value for name, value in given.items() if _is_setting(name, value)}
    if misplaced:
        are = "is a setting" if len(misplaced) == 1 else "are settings"
        message = f"{' and '.join(misplaced)} {are}: {call}settings={_shown(misplaced)})"
        raise TypeError(message) from None
    for name in given:
        if name not in _NAMES:
            raise TypeError(_unknown(name, call)) from None


def _is_setting(name: str, value: object) -> bool:
    """Return whether an argument belongs in the settings; `lock_registry` only if it is a URL."""
    return name in _SETTINGS and (name not in _NAMES or isinstance(value, str))


def _shown(settings: Mapping[str, Any]) -> str:
    """Return settings as Python source, without values that may be URLs, as these may hold passwords."""
    return "{" + ", ".join(f'"{name}": {_redacted(name, repr(value))}' for name, value in settings.items()) + "}"


def _redacted(name: str, text: str) -> str:
    return "..." if name == "lock_registry" or MAY_BE_URL.search(text) else text


def _unknown(name: str, call: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only an error needs it

    close = get_close_matches(name, (*_NAMES, *sorted(_SETTINGS)), n=1)
    guess = "".join(f" Did you mean {_correct_form(meant, call)}?" for meant in close)
    return f"{call}{name}=...): unknown argument {name!r}.{guess} Allowed: {', '.join(_NAMES)}"


def _correct_form(name: str, call: str) -> str:
    return name if name in _NAMES else f'the setting {name}: {call}settings={{"{name}": ...}})'
