"""The settings of a guard: one frozen object, and how it is loaded from arguments, environment, mapping or file.

The rule of each setting is stated once, in the annotation of its field in :class:`GuardSettings`. `msgspec.convert`
applies the annotations; the constructor, `msgspec.structs.replace` and unpickling apply them through
`__post_init__`. :func:`load_settings` and :func:`origins` take the names of the settings from these fields.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypedDict, Unpack

import msgspec
from msgspec import Meta

from crm_guard._base.codes import IMAGE_CHECK
from crm_guard._base.imports import first_import
from crm_guard._base.registry_url import MAY_BE_URL, check_url, masked_url

if TYPE_CHECKING:
    from collections.abc import Callable


ENV_PREFIX = "CRM_GUARD_"
"""Prefix of the environment variables: `timeout` is read from `CRM_GUARD_TIMEOUT`."""

DEFAULT_PATH_PATTERN = r"/crm(/[^/]+)?/v\d+(\.\d+)?/"
"""Matches the beginning of the URL path of a CRM call, as Zoho serves it."""

Source: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | None
"""What settings may be loaded from: a mapping, or the path of a TOML file."""

# No platform can wait longer than TIMEOUT_MAX at once, so neither a budget nor a wait may be longer.
_Budget = Annotated[float, Meta(ge=0, le=TIMEOUT_MAX, description="a number of seconds, 0 or more")]
_Wait = Annotated[float, Meta(gt=0, le=TIMEOUT_MAX, description="a number of seconds above 0")]
_Growth = Annotated[float, Meta(ge=1, le=sys.float_info.max, description="a finite number, 1 or more")]
_Share = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
_FromOne = Annotated[int, Meta(ge=1, description="a whole number, 1 or more")]
_FromZero = Annotated[int, Meta(ge=0, description="a whole number, 0 or more")]
_Switch = Annotated[bool, Meta(description="true or false (in the environment also 1 or 0, yes or no, on or off)")]
_Actions = Annotated[
    tuple[Annotated[str, Meta(min_length=1)], ...],
    Meta(
        description="a list of strings, not one string; [] for none "
        "(in the environment a list with commas, or a JSON array)"
    ),
]
_RaiseOn = Annotated[Literal["failure", "partial", "never"], Meta(description='"failure", "partial" or "never"')]
_Registry = Annotated[
    str,
    Meta(
        pattern=r"^(memory|rediss?://\S*|unix://\S+)\Z",
        description='"memory", or a URL that begins with redis://, rediss:// or unix://',
    ),
]
_Pattern = Annotated[str, Meta(min_length=1, description='a regular expression, not empty; "/" for every path')]


class SettingsError(ValueError):
    """A setting is unknown or has a value that is not allowed. The text names setting, origin and rule."""


class SettingsOptions(TypedDict, total=False):
    """The fields of `GuardSettings`, all optional. A test compares the two."""

    attempts: int
    timeout: float
    wait_initial: float
    wait_max: float
    wait_exp_base: float
    wait_jitter: float
    retry_actions: tuple[str, ...]
    raise_on: Literal["failure", "partial", "never"]
    hints_in_body: bool
    diagnose: bool
    share_locks: bool
    lock_registry: str
    wake_at_once: int
    min_credits: int
    max_inspect_bytes: int
    path_pattern: str


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    r"""How one guard behaves: frozen, hashable, picklable, equal by value, safe to share between threads.

    ::

        import requests
        import crm_guard

        settings = crm_guard.GuardSettings(timeout=30.0, raise_on="partial")
        crm_guard.mount_guard(requests.Session(), settings=settings)

    Without `settings`, `load_settings()` reads them: arguments before environment (`CRM_GUARD_TIMEOUT=30`) before a
    mapping or a TOML file (`[tool.crm_guard]`) before the defaults. An unknown key or a bad value is named,
    with its origin and what is allowed::

        import crm_guard

        settings = crm_guard.load_settings({"timeout": 30, "attempts": 10}, env={"CRM_GUARD_WAIT_MAX": "4"})
        print(settings.timeout, settings.attempts, settings.wait_max)

    `crm-guard settings FILE` shows the result; `python tests/benchmarks/waits.py` compares the waits of these
    settings with those of other libraries.

    All times are in seconds. An `int` is accepted for a `float` and a list for a tuple; both are converted to the
    type below. `True` is not accepted as a number, nor are NaN and infinity. The `repr` shows only the scheme of a
    `lock_registry` URL, since the rest may hold a password.
    `msgspec.structs.replace(settings, timeout=5)` makes a changed copy, with every rule checked again.

    Attributes:
        attempts: Sends in total for one call, the first included; 1 or more. 1 never sends again. With the default
            waits, `timeout` ends a call first. Default: 30.
        timeout: Budget of one call in seconds, counted from its first refusal, for waits and resends together; 0 or
            more. 0 never waits: a locked record fails at once. Default: 120.0.
        wait_initial: Ceiling of the first wait in seconds; above 0, at most `wait_max`. Default: 3.0.
        wait_max: Ceiling of every wait in seconds; at least `wait_initial`. Equal to it: waits do not grow.
            Default: 5.0.
        wait_exp_base: Factor by which the ceiling grows after each wait; 1 or more. 1: waits do not grow. Default:
            1.2.
        wait_jitter: Share of each wait that is random, 0 to 1. 0: each wait is exactly its ceiling; 0.2: between 80
            and 100 % of it; 1: anything up to it, so some waits are close to 0. Default: 0.2.
        retry_actions: Values of `details.action` that are waited for; case-sensitive. Empty: nothing is ever sent
            again, refusals are only explained. Default: `("zia_vision_processing",)`.
        raise_on: `"failure"`: raise if CRM applied nothing of a call; `"partial"`: raise if any record stayed
            blocked; `"never"`: always return the response, with its report. Default: `"failure"`.
        hints_in_body: Also append the hint to the `message` of a blocked item in the response body, which is all
            that most clients show to their user. False leaves messages as CRM wrote them. Default: False.
        diagnose: Spend one more GET to learn the approval state behind a `NOT_APPROVED`. False: no extra request is
            made, and the hint names every possible case. Default: True.
        share_locks: Let threads (and, with a Redis registry, hosts) share the state of a lock, so that one call
            asks CRM on behalf of all. False: each call asks by itself. Default: True.
        lock_registry: Where that state is kept: `"memory"` for this process, or a `redis://`, `rediss://` or
            `unix://` URL. Percent-encode special characters of the password. A URL that redis-py cannot use is
            refused at once. Error texts show only the scheme. Default: `"memory"`.
        wake_at_once: How many waiting calls are sent together when a record unlocks; 1 or more. 1: one after the
            other. CRM answers 429 to more concurrent calls than the plan of the organisation allows. Default: 10.
        min_credits: Stop waiting once `X-API-CREDITS-REMAINING` is at or below this number of API credits; 0 or
            more. 0: only when none is left. Default: 0.
        max_inspect_bytes: Largest response body that is inspected, in bytes; 0 or more. A larger one is passed
            through unread, so 0 disables the guard. Default: 8388608, 8 MiB.
        path_pattern: Regular expression for the URL paths of CRM calls, matched at the beginning of the path. Other
            calls are passed through, as are paths without an API version (`/v8/`): module and record are read from
            what follows the version. "/" is for all paths with one. Default: `/crm(/[^/]+)?/v\d+(\.\d+)?/`.

    Raises:
        SettingsError: A value has the wrong type or is out of range, or `wait_max` is less than
            `wait_initial`. `msgspec.convert` wraps it, as it does every error, in a
            `msgspec.ValidationError`.
        TypeError: There is no setting of that name.
    """

    attempts: _FromOne = 30
    timeout: _Budget = 120.0
    wait_initial: _Wait = 3.0
    wait_max: _Wait = 5.0
    wait_exp_base: _Growth = 1.2
    wait_jitter: _Share = 0.2
    retry_actions: _Actions = (IMAGE_CHECK,)
    raise_on: _RaiseOn = "failure"
    hints_in_body: _Switch = False
    diagnose: _Switch = True
    share_locks: _Switch = True
    lock_registry: _Registry = "memory"
    wake_at_once: _FromOne = 10
    min_credits: _FromZero = 0
    max_inspect_bytes: _FromZero = 8 * 1024 * 1024
    path_pattern: _Pattern = DEFAULT_PATH_PATTERN

    def __post_init__(self) -> None:
        for name in _FIELDS:
            msgspec.structs.force_setattr(self, name, _check(name, getattr(self, name)))
        # In the positive form, which NaN fails.
        if not self.wait_max >= self.wait_initial:
            msg = f"wait_max={self.wait_max!r} must be at least wait_initial={self.wait_initial!r}"
            raise SettingsError(msg)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, _redacted(name, getattr(self, name))) for name in _FIELDS]


def load_settings(
    source: Source = None, *, env: Mapping[str, str] | None = None, **overrides: Unpack[SettingsOptions]
) -> GuardSettings:
    """Load settings from arguments, environment, a mapping or file, and defaults; the first that has one wins.

    Every value is checked, including those that are overridden.

    Args:
        source: A mapping such as a dictionary of Django's settings, with keys in lower or upper case; or the
            path of a TOML file. A file is read from its table `[tool.crm_guard]`, or else from its top level;
            a `pyproject.toml` without that table holds no settings. None: no source.
        env: Environment to read `CRM_GUARD_<FIELD>` from; None: the current `os.environ`. Lists are written
            with commas or as a JSON array, switches as 1, 0, true, false, yes, no, on or off. An empty
            variable is refused: unset it for the default.
        **overrides: Fields of :class:`GuardSettings`; they override everything else.

    Raises:
        SettingsError: A name is unknown, a value is not allowed (the text names the setting, where it came from and
            what is allowed), or the file cannot be read.
    """
    return _resolve(_collect(source, env, overrides))


def origins(
    source: Source = None, *, env: Mapping[str, str] | None = None, **overrides: Unpack[SettingsOptions]
) -> dict[str, tuple[Any, str]]:
    """Return the values that :func:`load_settings` would use, and where each came from, in field order.

    Safe to print: a `lock_registry` URL, which may hold a password, is reduced to its scheme.

    Args:
        source: As for :func:`load_settings`.
        env: As for :func:`load_settings`.
        **overrides: As for :func:`load_settings`.

    Returns:
        For each field its value and one of `"default"`, `"mapping"`, `"file <path>"`, `"environment variable
        <name>"`, `"argument"`.

    Raises:
        SettingsError: As for :func:`load_settings`.
    """
    found = _collect(source, env, overrides)
    return {name: (value, found[name][1]) for name, value in _resolve(found).__rich_repr__()}


_FIELDS = {field.name: field for field in msgspec.structs.fields(GuardSettings)}

_Values: TypeAlias = dict[str, tuple[Any, str]]
"""Field -> checked value, and the origin as a text."""


# Checking one value


def _check(name: str, value: Any, origin: str = "") -> Any:
    """Return `value` converted to the type of field `name`; raise :class:`SettingsError` if it is not allowed."""
    try:
        return _convert(name, value)
    except msgspec.ValidationError:
        reason = ""
    except ValueError as error:
        reason = f" ({error})"
    # Raised outside the `except` blocks: a chained error might quote the value.
    shown = _redacted(name, value)
    if name == "path_pattern" and shown != value:
        reason = ""  # it may quote a piece of the pattern
    where = f"{origin}: " if origin else ""
    msg = f"{where}{name}={_written(shown)} must be {_rule(name, value)}{reason}"
    raise SettingsError(msg)


def _convert(name: str, value: Any) -> Any:
    if isinstance(value, float):
        value = float(value)  # msgspec refuses subclasses, numpy's among them
    value = msgspec.convert(value, _FIELDS[name].type)
    if name in _FURTHER_CHECKS:
        _FURTHER_CHECKS[name](value)
    return value


def _check_pattern(value: str) -> None:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _check_registry(value: str) -> None:
    if value != "memory":
        check_url(value)


_FURTHER_CHECKS: dict[str, Callable[[str], None]] = {
    "path_pattern": _check_pattern,
    "lock_registry": _check_registry,
}
"""Checks that an annotation cannot express."""


def _rule(name: str, value: object) -> str:
    """Return what is allowed in field `name`, in words; of a time that is too long, the limit."""
    meta = next(meta for meta in _FIELDS[name].type.__metadata__ if isinstance(meta, Meta))
    if isinstance(value, (int, float)) and meta.le == TIMEOUT_MAX and value > TIMEOUT_MAX:
        return f"at most {TIMEOUT_MAX:.0f} seconds"
    return str(meta.description)


# Redaction. A URL with a password, or a mapping that contains one, may have been given for the wrong setting.

# In a path an "@" alone is harmless: the home directory may be named after an account.
_PATH_MAY_BE_URL = re.compile(
    r"(?i)://|\?|password=|:[^/\\:@]*@|\A(//)?[^/\\@]*@"
    r"|\A[a-z][a-z0-9+.-]+:|[a-z0-9]{2}:[/\\]"  # a scheme, of which `Path` leaves one slash; a drive is one letter
)


class _Hidden:
    """Stands for a value that is not shown."""

    def __init__(self, value: object) -> None:
        self._kind = type(value).__name__

    def __repr__(self) -> str:
        return f"<{self._kind}>"


def _redacted(name: str, value: Any) -> Any:
    """Return the value of a field without secrets; it may be of any type, as a refused value is."""
    if name == "lock_registry":
        shown: Any = value if value is None else _Hidden(value)
        return masked_url(value) if isinstance(value, str) else shown
    if type(value) in (list, tuple):
        harmless = type(value)(map(_redacted_value, value)) == value
        return value if harmless else "***"  # as a whole: a URL with commas may have been taken for a list
    return _redacted_value(value)


def _redacted_value(value: Any) -> Any:
    """Return `value` if it is None, a number, or a string that is not a URL; otherwise a placeholder."""
    if isinstance(value, str):
        return "***" if MAY_BE_URL.search(value) else value
    return value if value is None or isinstance(value, (int, float)) else _Hidden(value)


def _written(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # a whole number with too many digits for Python to write
        return f"<{type(value).__name__}>"


# Merging the origins


def _collect(source: Source, env: Mapping[str, str] | None, overrides: Mapping[str, Any]) -> _Values:
    """Return the value of each field, from the first origin that has it."""
    defaults = {name: (field.default, "default") for name, field in _FIELDS.items()}
    environment = _from_env(os.environ if env is None else env)
    return defaults | _from_source(source) | environment | _from_mapping(overrides, "argument")


def _resolve(found: _Values) -> GuardSettings:
    try:
        return GuardSettings(**{name: value for name, (value, _) in found.items()})
    except SettingsError as error:  # each value is valid by itself: two of them contradict each other
        places = ", ".join(f"{name} from {found[name][1]}" for name in _FIELDS if f"{name}=" in str(error))
        msg = f"{error} ({places})"
        raise SettingsError(msg) from None


def _from_mapping(given: Mapping[str, Any], origin: str) -> _Values:
    found: _Values = {}
    for key, value in given.items():
        name = _field_name(key, origin)
        if name in found:
            msg = f"{origin}: {name} is given twice, in lower and in upper case"
            raise SettingsError(msg)
        found[name] = (_check(name, value, origin), origin)
    return found


def _field_name(key: str, origin: str) -> str:
    for name in _FIELDS:
        if key in (name, name.upper()):
            return name
    raise _unknown_error(key, origin, str)


def _unknown_error(key: str, origin: str, spelled: Callable[[str], str]) -> SettingsError:
    """Return the error for a key that is not a setting, with the most similar name."""
    from difflib import get_close_matches  # noqa: PLC0415 - only an error needs it

    close = get_close_matches(str(key).lower().removeprefix(ENV_PREFIX.lower()), _FIELDS, n=1)
    guess = "".join(f", did you mean {spelled(name)}?" for name in close)
    allowed = ", ".join(map(spelled, _FIELDS))
    return SettingsError(
        f"{origin}: unknown setting {_written(_redacted('', key))}{guess or '.'} Allowed: {allowed}"
    )


# Environment

_WORDS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _from_env(env: Mapping[str, str]) -> _Values:
    names = {_variable(name): name for name in _FIELDS}
    found: _Values = {}
    for key in sorted(key for key in env if key.upper().startswith(ENV_PREFIX)):
        origin = f"environment variable {_redacted_value(key)}"
        if key not in names:
            raise _unknown_error(key, origin, _variable)
        name = names[key]
        found[name] = (_check(name, _parse(name, env[key]), origin), origin)
    return found


def _parse(name: str, text: str) -> Any:
    """Return `text` converted for field `name`; if that fails, `text` itself, which the check refuses."""
    kind = type(_FIELDS[name].default)
    if kind is str:
        return text
    text = text.strip()
    if kind is bool:
        return _WORDS.get(text.lower(), text)
    try:
        return _parse_list(text) if kind is tuple else msgspec.convert(text, kind, strict=False)
    except msgspec.MsgspecError:
        return text


def _parse_list(text: str) -> Any:
    if text.startswith("["):
        return msgspec.json.decode(text)
    return [part.strip() for part in text.split(",")] if text else text


# Mapping or file


def _from_source(source: object) -> _Values:
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return _from_mapping(source, "mapping")
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(path, str):
        msg = f"source={_written(_redacted_value(source))} must be a mapping, or the path of a TOML file"
        raise SettingsError(msg)
    origin = f"file {'***' if _PATH_MAY_BE_URL.search(path) else path}"
    return _from_mapping(_settings_table(_read_toml(path, origin), origin), origin)


def _read_toml(path: str, origin: str) -> dict[str, Any]:
    with first_import:
        import tomllib  # noqa: PLC0415 - only a file needs it

    try:
        # Editors on Windows may begin a file with a byte order mark, which TOML refuses.
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = f"cannot be read: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError:
        reason = "is not valid TOML: no UTF-8 text"
    except (ValueError, RecursionError) as error:
        place = _TOML_PLACE.search(str(error))
        reason = f"is not valid TOML: {place[0] if place else 'nested too deeply, or a number too long'}"
    # Raised outside the `except` blocks: the texts of those errors quote the path or keys, and some hold the file.
    msg = f"{origin}: {reason}"
    raise SettingsError(msg)


_TOML_PLACE = re.compile(r"at (line \d+, column \d+|end of document)(?=\)\Z)")


def _settings_table(document: dict[str, Any], origin: str) -> Mapping[str, Any]:
    """Return the table of a TOML document that holds the settings."""
    tool = document.get("tool")
    tables = tool if isinstance(tool, dict) else {}
    if "crm-guard" in tables:
        msg = f"{origin}: [tool.crm-guard] must be written [tool.crm_guard]"
        raise SettingsError(msg)
    is_project = not document.keys().isdisjoint(("tool", "project", "build-system", "dependency-groups"))
    table = tables.get("crm_guard", {} if is_project else document)
    if not isinstance(table, dict):
        msg = f"{origin}: tool.crm_guard={_written(_redacted_value(table))} must be a table"
        raise SettingsError(msg)
    return table
