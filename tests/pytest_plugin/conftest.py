"""Runs of pytest within a test."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import crm_guard
from crm_guard import pytest_plugin


@pytest.fixture(scope="session")
def everything_loaded():
    """Import what an inner run might import first: afterwards pytester takes that out of `sys.modules`."""
    for found in pkgutil.walk_packages(crm_guard.__path__, "crm_guard."):
        if not found.name.startswith(("crm_guard.cli", "crm_guard.instrumentation.")) and "_bar" not in found.name:
            importlib.import_module(found.name)


@pytest.fixture
def inner(pytester, everything_loaded, monkeypatch):
    """Runs test modules, given by name, in this process, with our plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    options = ["-p", "no:cacheprovider", "--strict-markers", "-Werror"]

    def run(*more, **modules):
        pytester.makepyfile(**modules)
        return pytester.runpytest_inprocess(*options, *more, plugins=[pytest_plugin])

    return run


@pytest.fixture
def installed(pytester, everything_loaded):
    """Runs one test module in this process, with every plugin that is installed."""

    def run(*options, module):
        pytester.makepyfile(module)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    return run
