"""Shared fixtures: real scenes by LPM_TEST_DATA, a GPU where there is one, threads that suit a test."""

import os
from pathlib import Path

import pytest
import torch


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
