"""Nothing of tracing or metrics is imported, or needed, by who does not ask for it."""

from __future__ import annotations

import inspect

import pytest

import crm_guard
import crm_guard.instrumentation
from tests.instrumentation.lab import said

SHOWN = """
import sys

def show(step):
    found = {"opentelemetry", "prometheus_client", "structlog"} & set(sys.modules)
    print(step, *sorted(found), sep=" ")
"""

WITHOUT = (
    SHOWN
    + """
import crm_guard
show("import")
for name in dir(crm_guard):
    getattr(crm_guard, name)
show("names")
import requests
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock

clock, row = ManualClock(), {"data": [{"Company": "Zylker"}]}
crm_guard.instrument([lambda event: None])
with Simulator(clock=clock) as crm, requests.Session() as session:
    crm_guard.mount_guard(session, crm.url, clock=clock)
    locked = crm.add_record("Leads", refusals=1)
    approval = crm.add_record("Leads", refusals=1, then="zia_vision_rejected")
    assert session.put(f"{crm.url}/crm/v8/Leads/{locked}", json=row).ok
    show("locked")
    rows = [{"id": crm.add_record("Leads", refusals=n % 2), "Company": "9"} for n in range(4)]
    rows.append({"id": approval, "Company": "9"})
    settings = crm_guard.GuardSettings(wait_initial=0.001, wait_max=0.001)
    with requests.Session() as plain:
        url = f"{crm.url}/crm/v8/Leads"
        results = list(crm_guard.write_records(plain, "PUT", url, rows, settings=settings))
    assert sorted(result.succeeded for result in results) == [False, True, True, True, True]
    show("many")
import crm_guard.instrumentation
assert {"OpenTelemetryHook", "PrometheusHook", "instrument"} <= set(dir(crm_guard.instrumentation))
assert crm_guard.instrumentation.instrument is crm_guard.instrument
show("instrumentation")
"""
)

ONE = (
    SHOWN
    + """
from crm_guard.instrumentation import NAME
show("one")
"""
)

BLOCKED = """
import sys
for name in ("opentelemetry", "opentelemetry.trace", "prometheus_client"):
    sys.modules[name] = None
import crm_guard, crm_guard.instrumentation
from crm_guard.instrumentation import instrument
heard = []
assert instrument([heard.append]) == ()
for name in ("OpenTelemetryHook", "PrometheusHook"):
    for _ in range(2):  # a module whose import failed once does not look like one that is there
        try:
            getattr(crm_guard.instrumentation, name)
        except ImportError as exc:
            print(type(exc).__name__, exc.name, exc)
"""


def test_nothing_is_imported_by_calls_that_meet_locks_nor_by_the_package_of_the_hooks():
    assert said(WITHOUT) == ["import", "names", "locked", "many", "instrumentation"]


@pytest.mark.parametrize(
    ("name", "library"), [("OpenTelemetryHook", "opentelemetry"), ("PrometheusHook", "prometheus_client")]
)
def test_a_hook_imports_its_own_library_alone(name, library):
    assert said(ONE.replace("NAME", name)) == [f"one {library}"]


def test_a_hook_without_its_library_names_the_extra_to_install():
    opentelemetry, again, prometheus, twice = said(BLOCKED)
    assert (opentelemetry, prometheus) == (again, twice)
    assert opentelemetry == (
        "ImportError opentelemetry OpenTelemetryHook needs the OpenTelemetry API: "
        "pip install 'crm-guard[opentelemetry]'"
    )
    assert prometheus == (
        "ImportError prometheus_client PrometheusHook needs prometheus-client: pip install 'crm-guard[prometheus]'"
    )


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'crm_guard[.]instrumentation' has no attribute 'DatadogHook'"):
        crm_guard.instrumentation.DatadogHook  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'DatadogHook'"):
        from crm_guard.instrumentation import DatadogHook  # noqa: F401


def test_the_hooks_can_be_found_by_who_looks_through_the_package():
    found = dict(inspect.getmembers(crm_guard.instrumentation))
    assert set(crm_guard.instrumentation.__all__) <= set(found)
    assert all(inspect.getdoc(found[name]) for name in crm_guard.instrumentation.__all__)
