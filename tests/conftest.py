"""Shared fixtures: real scenes by LPM_TEST_DATA, a GPU where there is one, threads that suit a test.

Without nerfstudio and gsplat (`make test-core`) tests that need them are skipped, and the first line says so.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ABSENT = [name for name in ("nerfstudio", "gsplat", "pytorch_msssim") if find_spec(name) is None]
"""Of the host and what it brings, what a plain install has not."""
MISSED = re.compile(rf"No module named '({'|'.join(ABSENT)})\b")
collect_ignore = ["plugin"] if "nerfstudio" in ABSENT else []


def pytest_report_header():
    """Says what is left out."""
    return f"without {', '.join(ABSENT)}: tests/plugin and tests that need them are skipped" if ABSENT else None


def skipped_without(report, path, line):
    """`report` of what needs a package that is not there, as that of a skip."""
    missed = MISSED.search(str(report.longrepr)) if ABSENT and report.outcome == "failed" else None
    if missed:
        report.outcome, report.longrepr = "skipped", (str(path), line, f"needs {missed[1]}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """A module that cannot be imported since the host is not installed is skipped."""
    return skipped_without((yield), collector.path, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What fails since the host is not installed is skipped."""
    return skipped_without((yield), item.path, item.location[1] or 0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scenes; tests that need it are skipped where LPM_TEST_DATA is unset."""
    folder = os.environ.get("LPM_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LPM_TEST_DATA is not set to the folder of real scenes")
    return Path(folder).resolve()


def pytest_collection_modifyitems(items):
    """Tests for a GPU are skipped where there is none, unless LPM_TEST_DEVICE=cpu asks whether they run at all."""
    if torch.cuda.is_available() or os.environ.get("LPM_TEST_DEVICE") == "cpu":
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
