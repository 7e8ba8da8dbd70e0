"""Runs the test-suite of `requests` itself with the guard in the place of the stock adapter, for every URL.

    pip install -e '.[dev]' pytest-httpbin trustme PySocks && python tests/requests_suite.py [pytest arguments]

It takes the suite from the source distribution of the installed version, and needs a minute and a half. As a pytest
plugin (`-p requests_suite`) this module does the replacing.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import requests

from crm_guard import GuardAdapter, GuardSettings

# These two wait for an address outside this machine that never answers.
LEFT_OUT = "not test_connect_timeout and not test_total_timeout_connect"


class Everywhere(GuardAdapter):
    """A guard that takes every URL for a CRM call, and its arguments in the order of the stock adapter."""

    def __init__(self, pool_connections=10, pool_maxsize=10, max_retries=0, pool_block=False):
        super().__init__(
            GuardSettings(path_pattern="/"),
            pool_connections=pool_connections,
            pool_maxsize=pool_maxsize,
            max_retries=max_retries,
            pool_block=pool_block,
        )


def pytest_configure():
    """Replace the stock adapter."""
    requests.adapters.HTTPAdapter = requests.sessions.HTTPAdapter = Everywhere


def main(arguments):
    """Fetch the suite and run it; return pytest's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        name = f"requests=={requests.__version__}"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:", "-d", folder, name]
        subprocess.run(pip, check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        suite = Path(folder, archive.name.removesuffix(".tar.gz"))
        paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "requests_suite", "-k", LEFT_OUT, "tests", *arguments]
        return subprocess.run(pytest, check=False, cwd=suite, env={**os.environ, "PYTHONPATH": paths}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
