#!/usr/bin/env python3
"""Builds, checks and measures on a bare machine with a GPU; prepare.py made the folder that this stands in.

    python3 .gpu/on_machine.py [--seconds 540] [--gsplat 1.4.0] [--stages tests times train] [--out FOLDER]

In the checkout's root. Every stage is a process with a time limit of its own; how it ended is in stages.txt, what it
said in log.txt, as soon as it has ended, and the most telling stages come first: whatever comes back is of use. The
exit code is that of the last stage that failed. `--device cpu` shows that it runs, where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

KIT = Path(__file__).resolve().parent
STAGES = ("tests", "times", "train")
TESTS = {  # in the order of what they need: our kernels; gsplat's; nerfstudio
    "tests-kernels": ["tests/kernels/test_device.py"],
    "tests-raster": ["tests/grad/test_raster.py", "tests/unit/test_lpm_models.py", "tests/unit/test_correspond.py"],
    "tests-training": ["tests/plugin/test_gpu_training.py"],
}
METHODS = ("lpm", "adc", "mcmc", "splatfacto")


def unpack(site: Path, gsplat: str) -> None:
    """A wheel is a zip: into the folder `site`, without an installer."""
    wheels = [*sorted((KIT / "wheels").glob("*.whl")), *(KIT / "gsplat").glob(f"gsplat-{gsplat}-*.whl")]
    shutil.rmtree(site, ignore_errors=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    print(f"{len(wheels)} wheels unpacked")


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit, by nvcc's own word: what PATH finds may be a wrapper that lies elsewhere."""
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        return None
    told = subprocess.run([nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True)
    tops = [line.split("TOP=", 1)[1] for line in told.stderr.splitlines() if "TOP=" in line]
    return Path(tops[0].strip()).resolve() if tops else None


class Stages:
    """Runs commands one after another within so many seconds in all."""

    def __init__(self, out: Path, seconds: float, env: dict[str, str]) -> None:
        self.out, self.end, self.env, self.code = out, time.monotonic() + seconds, env, 0
        out.mkdir(parents=True, exist_ok=True)
        for name in ("stages.txt", "log.txt"):
            (out / name).write_text("")

    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self, name: str, limit: float, command: list[str]) -> bool:
        """Whether the stage ended well within `limit` seconds; what it left running is ended with it."""
        begin, limit = time.monotonic(), min(limit, self.left() - 3)
        if limit < 5:
            return self._tell(name, "left out, no time", 1)
        with open(self.out / "log.txt", "a") as log:
            log.write(f"=== {name}: {shlex.join(command)}\n")
            log.flush()
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.env, start_new_session=True)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = 124
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        ended = f"cut off after {limit:.0f} s" if code == 124 else f"exit {code}"
        return self._tell(name, f"{time.monotonic() - begin:.1f} s, {ended}", code)

    def _tell(self, name: str, text: str, code: int) -> bool:
        self.code = code or self.code
        print(f"{name}: {text}", flush=True)
        with open(self.out / "stages.txt", "a") as file:
            file.write(f"{name}: {text}\n")
        return code == 0


def failures(out: Path) -> list[str]:
    """What the tests said last, and which failed."""
    lines = (out / "log.txt").read_text(errors="replace").splitlines()
    return [
        line[:200] for line in lines if line.startswith(("FAILED", "ERROR")) or re.match(r"\d+ (passed|failed)", line)
    ]


def environment(options: argparse.Namespace, site: Path) -> dict[str, str]:
    """Of all stages: what was unpacked comes first, nothing asks the network, compilers find CUDA."""
    env = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1", HF_HUB_OFFLINE="1", MAX_JOBS="16",
               LPM_TEST_DATA=str(KIT / "data"), LPM_TEST_DEVICE=options.device)  # fmt: skip
    env["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    env.setdefault("LPM_CACHE", str(site.parent / "lpm_cache"))
    env.setdefault("TORCH_EXTENSIONS_DIR", str(site.parent / "torch_extensions"))
    home = toolkit()
    if home is not None:
        env["CUDA_HOME"], env["PATH"] = str(home), os.pathsep.join([str(home / "bin"), env["PATH"]])
    return env


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=540, help="of all stages together")
    parser.add_argument("--gsplat", default="1.4.0")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--scenes", nargs="+", default=["fox"])
    parser.add_argument("--steps", type=int, default=7_000)
    parser.add_argument("--points", type=int, default=1_000_000, help="for the kernels")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--site", type=Path, default=Path("/tmp/lpm_gpu/site"), help="where the wheels go")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "/tmp/lpm_gpu/out")))
    options = parser.parse_args()
    stages = Stages(options.out, options.seconds, environment(options, options.site))
    python = [sys.executable, "-P"]
    about = "nvidia-smi; nvcc --version; g++ --version; python3 -V; nproc; uname -r; "
    about += f"{sys.executable} -c 'import torch, numpy; print(torch.__version__, numpy.__version__)'"
    stages.run("machine", 30, ["sh", "-c", about])
    unpack(options.site, options.gsplat)
    capability = "torch.cuda.get_device_capability()"
    ours = f"import torch; from lpm.cuda.build import build, build_cuda; print(build(), build_cuda({capability}))"
    theirs = "from gsplat.cuda._backend import _C; import gsplat; assert _C is not None; print(gsplat.__version__, _C)"
    if options.device == "cpu":
        ours, theirs = "from lpm.cuda.build import build; print(build())", "import gsplat"
    stages.run("build-ours", 120, [*python, "-c", ours])
    pytest = [*python, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "--timeout", "120"]
    if "tests" in options.stages:
        stages.run("tests-kernels", 90, [*pytest, *TESTS["tests-kernels"]])
    stages.run("build-gsplat", 300, [*python, "-c", theirs])
    if "tests" in options.stages:
        for name in ("tests-raster", "tests-training"):
            stages.run(name, 150, [*pytest, *TESTS[name]])
    gpu = [*python, "benchmarks/gpu.py", "--data", str(KIT / "data"), "--device", options.device]
    gpu += ["--steps", str(options.steps), "--points", str(options.points)]
    if "times" in options.stages:
        out = options.out / "kernels.json"
        stages.run("times", 90, [*gpu, "--scenes", "--out", str(out)])
    if "train" in options.stages:
        limit = max(20, (stages.left() - 5) / len(METHODS) / len(options.scenes))
        out = options.out / "training.json"
        command = [*gpu, "--no-kernels", "--limit", f"{limit:.0f}", "--out", str(out)]
        stages.run("train", stages.left(), [*command, "--methods", *METHODS, "--scenes", *options.scenes])
    print("\n".join(failures(options.out)))
    for name in ("kernels", "training"):
        table = options.out / f"{name}.md"
        print(table.read_text() if table.exists() else f"no {name}")
    (options.out / "asked.json").write_text(json.dumps({k: str(v) for k, v in vars(options).items()}, indent=1) + "\n")
    raise SystemExit(stages.code)


if __name__ == "__main__":
    main()
