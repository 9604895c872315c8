"""nerfstudio's own commands on what we train: as processes, offline, on the CPU, with no environment variable."""

import ctypes.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
STEPS = 40


def environment():
    """Ours, less what would hide that a variable is needed; proxies that go nowhere stand for "offline"."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCH_", "LPM_", "HF_", "CUDA"))}
    nowhere = "http://127.0.0.1:9"
    return {**kept, "http_proxy": nowhere, "https_proxy": nowhere, "COLUMNS": "200", "NO_COLOR": "1"}


def call(*command, cwd, check=True, timeout=300):
    result = subprocess.run(
        [BIN / command[0], *map(str, command[1:])], cwd=cwd, env=environment(), text=True, timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if check:
        assert result.returncode == 0, result.stdout[-4000:]
    return result


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run of the plain command: no flag about the device."""
    folder = tmp_path_factory.mktemp("host")
    result = call(
        "ns-train", "lpm-splat", "--data", tiny, "--max-num-iterations", STEPS, "--viewer.quit-on-train-completion",
        "True", "--timestamp", "first", "--experiment-name", "tiny", cwd=folder,
    )  # fmt: skip
    run = folder / "outputs" / "tiny" / "lpm-splat" / "first"
    assert (run / "nerfstudio_models" / f"step-{STEPS - 1:09d}.ckpt").exists()
    return folder, run, result.stdout


def test_train_says_what_it_chose(trained):
    _, run, text = trained
    text = " ".join(text.split())
    assert re.search(rf"lpm-splat \(CPU defaults; each can be overridden\): strategy \w+, {STEPS} steps, ", text)
    assert re.search(r"About \d+ (s|min)\.", text)
    assert "127.0.0.1" in text or "localhost" in text
    saved = (run / "config.yml").read_text()
    assert "camera_res_scale_factor: 1.0" in saved
    assert "device_type: cpu" in saved


def test_eval_prints_held_out_metrics(trained):
    folder, run, _ = trained
    result = call("ns-eval", "--load-config", run / "config.yml", "--output-path", folder / "e.json", cwd=folder)
    metrics = json.loads((folder / "e.json").read_text())["results"]
    text = " ".join(result.stdout.split())
    assert f"Held-out: PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.4f}" in text
    assert "LPIPS is left out" in text or "lpips" in metrics
    assert 3 < metrics["psnr"] < 60


def test_resume_by_load_dir_goes_on(trained, tiny):
    folder, run, _ = trained
    result = call(
        "ns-train", "lpm-splat", "--data", tiny, "--load-dir", run / "nerfstudio_models", "--max-num-iterations",
        STEPS + 5, "--viewer.quit-on-train-completion", "True", "--timestamp", "second", "--experiment-name", "tiny",
        cwd=folder,
    )  # fmt: skip
    assert f"step-{STEPS - 1:09d}.ckpt: step {STEPS}." in " ".join(result.stdout.split())
    assert (run.parent / "second" / "nerfstudio_models" / f"step-{STEPS + 4:09d}.ckpt").exists()


def test_bad_input_ends_in_one_line(trained):
    """As a process: every kind of bad input is in tests/unit/test_bad_input.py."""
    folder, _, _ = trained
    result = call(
        "ns-train", "lpm-splat", "--data", folder / "nowhere", "--timestamp", "third", cwd=folder, check=False
    )
    assert result.returncode != 0
    assert result.stdout.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stdout
    assert not list(folder.rglob("third"))


def test_render_dataset(trained):
    folder, run, _ = trained
    names = ["rgb", "gt-rgb", "depth", "accumulation", "background"]
    call(
        "ns-render", "dataset", "--load-config", run / "config.yml", "--output-path", folder / "frames", "--split",
        "test", "--rendered-output-names", *names, cwd=folder,
    )  # fmt: skip
    for name in names:
        assert list((folder / "frames" / "test" / name).iterdir()), name


def test_render_paths(trained):
    folder, run, _ = trained
    video = folder / "path.mp4"
    interpolate = (
        "ns-render", "interpolate", "--load-config", run / "config.yml", "--output-path", video,
        "--interpolation-steps", 2,
    )  # fmt: skip
    if shutil.which("ffmpeg") is None:
        result = call(*interpolate, cwd=folder, check=False)
        assert result.returncode != 0
        assert "ffmpeg" in result.stdout
        assert not video.exists()
        return
    call(*interpolate, cwd=folder)
    assert video.stat().st_size > 1000
    path = folder / "camera_path.json"
    camera = {"camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1], "fov": 50, "aspect": 1}
    path.write_text(
        json.dumps({"camera_path": [camera] * 3, "render_height": 32, "render_width": 32, "fps": 3, "seconds": 1})
    )
    video = folder / "camera_path.mp4"
    call(
        "ns-render", "camera-path", "--load-config", run / "config.yml", "--camera-path-filename", path,
        "--output-path", video, cwd=folder,
    )  # fmt: skip
    assert video.stat().st_size > 500


def test_exports(trained):
    folder, run, _ = trained
    call("lpm-export", "ply", run, folder / "ours.ply", cwd=folder)
    assert (folder / "ours.ply").read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\n")
    result = call(
        "ns-export", "gaussian-splat", "--load-config", run / "config.yml", "--output-dir", folder / "theirs",
        cwd=folder, check=False,
    )  # fmt: skip
    if ctypes.util.find_library("usb-1.0"):
        assert result.returncode == 0, result.stdout[-2000:]
        from lpm.formats.ply import read_ply

        assert len(read_ply(folder / "theirs" / "splat.ply")["means"]) > 10
    else:
        assert "libusb" in result.stdout
        assert "lpm-export" in Path(__file__).parents[2].joinpath("README.md").read_text()


def test_viewer_serves_and_stops(trained):
    folder, run, _ = trained
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen(
        [BIN / "ns-viewer", "--load-config", run / "config.yml", "--viewer.websocket-port", str(port)], cwd=folder,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        page = b""
        for _ in range(120):
            time.sleep(1)
            assert process.poll() is None, process.stdout.read()[-3000:]
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).read()
                break
            except OSError:
                continue
        assert b"<html" in page.lower()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_config_of_another_version_is_told_in_one_line(tmp_path):
    """Its classes lie elsewhere now; parameters still open by our own commands."""
    (tmp_path / "config.yml").write_text("!!python/object:lpm.no_such_module.LpmTrainerConfig\nmax_num_iterations: 3\n")
    result = call("ns-eval", "--load-config", tmp_path / "config.yml", cwd=tmp_path, check=False)
    assert result.returncode != 0
    lines = result.stdout.strip().splitlines()
    assert lines[-1].startswith("error: config.yml: written by another version of lpm-splat"), result.stdout[-2000:]
    assert "Traceback" not in result.stdout
