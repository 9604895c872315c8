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
NEEDS_THEM = re.compile(rf"^(?:from|import) (?:{'|'.join(ABSENT)})\b", re.MULTILINE)
HERE = Path(__file__).parent
collect_ignore = [path for path in HERE.rglob("test_*.py") if ABSENT and NEEDS_THEM.search(path.read_text())]
collect_ignore += [HERE / "plugin"] if "nerfstudio" in ABSENT else []


def pytest_report_header():
    """Says which modules are left out."""
    left_out = ", ".join(path.name for path in collect_ignore)
    return f"without {', '.join(ABSENT)}: tests that need them are skipped, and so are {left_out}" if ABSENT else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What fails since the host is not installed is skipped."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in ABSENT:
        report.outcome, report.longrepr = "skipped", (str(item.path), item.location[1] or 0, f"needs {error.name}")
    return report


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
