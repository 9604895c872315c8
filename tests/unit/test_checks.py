"""Commands end with one line, or silently where nobody reads any more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lpm.checks import fail, one_line_errors


def test_an_error_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        one_line_errors(lambda: fail("scale", "0", "above 0", "leave it out"))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: scale: 0; wanted above 0; leave it out\n"


def test_a_reader_that_has_gone_is_no_traceback():
    code = "from lpm.checks import one_line_errors; one_line_errors(lambda: print('x' * 10**6))"
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout
    assert command.stderr
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait() == 1
