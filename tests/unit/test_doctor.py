"""lpm-doctor tells what is there, and mends what it says it mends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lpm import doctor


def test_a_complete_environment_starts(capsys):
    pytest.importorskip("nerfstudio")
    with pytest.raises(SystemExit) as end:
        doctor.doctor()
    said = capsys.readouterr().out
    assert end.value.code == 0, said
    assert "lpm-train and ns-train lpm-splat will start" in said
    assert "nerfstudio" in said


def test_what_is_missing_is_named_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "version_of", lambda name: None if name in ("viser", "nerfstudio", "gsplat", "pycolmap") else "1"
    )
    found = {finding.name: finding for finding in doctor.findings()}
    assert (found["viser"].state, found["gsplat"].state, found["pycolmap"].state) == ("broken", "optional", "optional")
    assert "pip install" in found["gsplat"].remedy
    assert "prepare" in found["pycolmap"].remedy
    with pytest.raises(SystemExit) as end:
        doctor.doctor()
    assert end.value.code == 1
    assert "1 of these must be mended" in capsys.readouterr().out


def test_a_program_that_is_not_on_path_is_optional(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = {finding.name: finding for finding in doctor.findings()}
    assert (found["ffmpeg"].state, found["npx"].state) == ("optional", "optional")
    assert found["CPU kernels"].state == "optional"
    assert "g++" in found["CPU kernels"].remedy


def test_a_package_that_does_not_import_is_broken(monkeypatch, tmp_path):
    (tmp_path / "half_a_package.py").write_text("raise RuntimeError('no libfoo')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "version_of", lambda name: "1.2")
    finding = doctor._package("half", "half_a_package", "why", False, "do this")
    assert finding == doctor.Finding("half", "broken", "1.2 does not import: RuntimeError: no libfoo", "do this")


def test_fix_writes_a_hook_that_every_start_imports(tmp_path):
    target = doctor.install_hook(tmp_path)
    code = f"import site, sys; site.addsitedir({str(tmp_path)!r}); print('lpm_torchvision_hook' in sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
    assert target.read_text() == (doctor.Path(doctor.__file__).with_name("torchvision_hook.py")).read_text()
