"""Checks of the arguments of `write_records`: each failure names the argument, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

_MOST_WORKERS: Final = 100
_METHODS: Final = ("PUT", "POST", "DELETE")


def check_options(
    *, method: object, url: object, key: object, progress: object, timeout: object, workers: object, pending: object
) -> None:
    """Check what does not depend on where the rows go.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not allowed.
    """
    if not isinstance(method, str) or not isinstance(url, str):
        message = f"method and url must be texts, and are {type(method).__name__} and {type(url).__name__}"
        raise TypeError(message)
    if method.upper() not in _METHODS:
        message = f"method={method!r} must be one of {', '.join(_METHODS)}"
        raise ValueError(message)
    if key is not None and not callable(key):
        message = f"key must be a function from a row to its key, or None, and is a {type(key).__name__}"
        raise TypeError(message)
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        message = f"progress must be a function, a bool or None, and is a {type(progress).__name__}"
        raise TypeError(message)
    check_number("workers", workers, _MOST_WORKERS)
    check_number("max_pending", pending, None)
    _check_timeout(timeout)


def check_number(name: str, value: object, most: int | None) -> None:
    """Check that a count is a whole number from 1 to `most`."""
    allowed = f"must be a whole number from 1 to {most}" if most else "must be a whole number, 1 or more"
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{name}={value!r} {allowed}"
        raise TypeError(message)
    if value < 1 or (most is not None and value > most):
        message = f"{name}={value!r} {allowed}"
        raise ValueError(message)


def check_rows(rows: Any) -> None:
    """Check that `rows` is an iterable of rows, and none of those that are mistaken for one.

    Raises:
        TypeError: It is not.
    """
    if isinstance(rows, str | bytes | Mapping):
        message = f"rows must be an iterable of rows, and is a single {type(rows).__name__}: put it into a list"
        raise TypeError(message)
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        message = (
            'rows is a table, whose iteration gives the names of its columns: give rows.to_dict("records"), '
            "with nothing in place of NaN"
        )
        raise TypeError(message)
    if not isinstance(rows, Iterable) and not hasattr(rows, "__getitem__"):
        message = f"rows must be an iterable of rows, and is a {type(rows).__name__}"
        raise TypeError(message)


def _check_timeout(timeout: object) -> None:
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    for part in parts:
        is_number = isinstance(part, int | float) and not isinstance(part, bool)
        if part is None or (isinstance(part, int | float) and is_number and 0 < part < math.inf):
            continue
        message = f"timeout={timeout!r} must be seconds above 0, a pair of them (connect, read), or None"
        raise TypeError(message) if not is_number else ValueError(message)
    if isinstance(timeout, tuple) and len(timeout) != 2:
        message = f"timeout={timeout!r} must be seconds above 0, a pair of them (connect, read), or None"
        raise ValueError(message)
