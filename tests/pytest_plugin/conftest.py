"""Runs of pytest within a test."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import crm_guard


@pytest.fixture(scope="session")
def everything_loaded():
    """Import what an inner run might import first: afterwards pytester takes that out of `sys.modules`."""
    for found in pkgutil.walk_packages(crm_guard.__path__, "crm_guard."):
        if not found.name.startswith(("crm_guard.cli", "crm_guard.instrumentation.")):
            importlib.import_module(found.name)


@pytest.fixture
def inner(pytester, everything_loaded, monkeypatch):
    """Runs test modules, given by name, in this process, with our plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    ours = ["-p", "no:cacheprovider", "-p", "crm_guard"]

    def run(*options, **modules):
        pytester.makepyfile(**modules)
        return pytester.runpytest_inprocess(*ours, "--strict-markers", "-Werror", *options)

    return run
