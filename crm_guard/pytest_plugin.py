"""The pytest plugin: fixtures and markers. Their reference is `crm_guard.testing`, or `crm-guard help testing`.

pytest loads this module in every run, also where nobody tests CRM: it imports pytest and nothing else. What a
fixture needs is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from requests import Session

    from crm_guard.settings import GuardSettings
    from crm_guard.simulator import Simulator
    from crm_guard.testing import ManualClock

T = TypeVar("T")

_MARKERS = (
    "crm_guard(**settings): settings of the fixture guarded_session, such as timeout=30 (crm_guard.GuardSettings)",
    "zoho_crm(**options): options of the fixture zoho_crm, such as sandbox=True (crm_guard.simulator.Options)",
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for line in _MARKERS:
        config.addinivalue_line("markers", line)


def _read(read: Callable[[Iterable[pytest.Mark]], T], marks: Iterable[pytest.Mark]) -> T:
    """Return what markers say; a mistake in them fails the test, with its text alone."""
    try:
        return read(marks)
    except ValueError as error:
        reason = str(error)
    pytest.fail(reason, pytrace=False)  # outside, or pytest would show the error as well


@pytest.fixture
def zoho_clock() -> ManualClock:
    """The clock of zoho_crm and of all guards: a wait on it takes no time (a crm_guard.testing.ManualClock).

    Waits of several threads overlap. Without zoho_crm it changes nothing: guards wait on the system's clock.
    """
    from crm_guard.testing import overlapping_clock  # noqa: PLC0415

    return overlapping_clock()


@pytest.fixture
def zoho_crm(request: pytest.FixtureRequest, zoho_clock: ManualClock) -> Iterator[Simulator]:
    """A simulated Zoho CRM that answers for every host of Zoho, too (a crm_guard.simulator.Simulator).

    Its options are those of the marker zoho_crm.
    """
    from crm_guard._testing.call_log import call_lines  # noqa: PLC0415
    from crm_guard._testing.marks import marked_options  # noqa: PLC0415
    from crm_guard.testing import simulated_zoho  # noqa: PLC0415

    options = _read(marked_options, request.node.iter_markers("zoho_crm"))
    with simulated_zoho(zoho_clock, **options) as crm:
        yield crm
        if calls := crm.calls:  # shown if the test failed
            request.node.add_report_section("teardown", "Zoho CRM calls", call_lines(calls, crm.answered))


@pytest.fixture
def crm_guard_settings(request: pytest.FixtureRequest) -> GuardSettings:
    """The settings of guarded_session: those of the marker crm_guard, whatever the environment says."""
    from crm_guard._testing.marks import marked_settings  # noqa: PLC0415

    return _read(marked_settings, request.node.iter_markers("crm_guard"))


@pytest.fixture
def guarded_session(zoho_crm: Simulator, crm_guard_settings: GuardSettings) -> Iterator[Session]:
    """A requests.Session with a guard on the URL of zoho_crm and on Zoho's own hosts."""
    from requests import Session  # noqa: PLC0415

    from crm_guard.mounting import CRM_PREFIXES, mount_guard  # noqa: PLC0415

    with Session() as session:
        session.trust_env = False  # neither a proxy nor the `.netrc` of this machine decides on a test
        mount_guard(session, (zoho_crm.url, *CRM_PREFIXES), settings=crm_guard_settings)
        yield session
