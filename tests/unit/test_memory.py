"""Memory that was freed stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREE_AND_TAKE = """
import ctypes, resource, sys, torch
from lpm.train.out_of_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
else:  # glibc raises this threshold by itself, at times so far that the heap keeps everything
    assert ctypes.CDLL(None).mallopt(-3, 128 * 1024)
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): [torch.zeros(5 * 2**20) for _ in range(8)]
before = faults()
for _ in range(10): [torch.zeros(5 * 2**20) for _ in range(8)]
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")
def test_what_a_step_frees_is_not_fetched_anew_from_the_system():
    run = lambda way: int(subprocess.check_output([sys.executable, "-c", FREE_AND_TAKE, way]))  # noqa: E731
    kept, given_back = run("keep"), run("do not")
    assert kept < 1_000  # 1,600 MiB are 409,600 pages
    assert given_back > 400_000
