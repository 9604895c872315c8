#!/usr/bin/env python3
"""Builds, checks and measures on a bare machine with a GPU; prepare.py made the folder that this stands in.

    python3 .gpu/on_machine.py [--seconds 540] [--gsplat 1.4.0] [--stages tests times train] [--out FOLDER]

In the checkout's root. Every stage is a process with a time limit of its own; how it ended is in stages.txt, what it
said in log.txt, as soon as it has ended, and the most telling stages come first: whatever comes back is of use. What
is not timed runs side by side, and what is timed prepares meanwhile, and then runs alone. The exit code is that of the
last stage that failed. `--device cpu` shows that it runs, where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import lzma
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

KIT = Path(__file__).resolve().parent
STAGES = ("tests", "commands", "moving", "events", "train", "beside")
TESTS = {  # in the order of what they need: our kernels; gsplat's; nerfstudio
    "tests-kernels": ["tests/kernels/test_device.py"],
    "tests-raster": ["tests/grad/test_raster.py", "tests/unit/test_lpm_models.py", "tests/unit/test_correspond.py",
                     "tests/editing/test_refit.py"],
    "tests-training": ["tests/plugin/test_gpu_training.py"],
}  # fmt: skip
COMPILED = """import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import torch

loader = importlib.machinery.ExtensionFileLoader("gsplat_cuda", str(Path(__file__).with_name("gsplat_cuda.so")))
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gsplat_cuda", loader))
loader.exec_module(module)
sys.modules[__name__] = module
"""
"""Stands for gsplat's extension where it was compiled elsewhere, for the same torch and chip."""
METHODS = ("lpm", "adc", "mcmc", "splatfacto", "lpm@250000", "mcmc@250000")
LONG = ("fox/lpm@250000/30000", "fox/mcmc@250000/30000")


def unpack(site: Path, gsplat: str) -> None:
    """A wheel is a zip: into the folder `site`, without an installer."""
    wheels = [*sorted((KIT / "wheels").glob("*.whl")), *(KIT / "gsplat").glob(f"gsplat-{gsplat}-*.whl")]
    shutil.rmtree(site, ignore_errors=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    print(f"{len(wheels)} wheels unpacked")
    compiled = KIT / "gsplat" / f"gsplat-{gsplat}.so.xz"
    if compiled.is_file():  # gsplat looks for an extension of the name `csrc` before it compiles one
        (site / "gsplat" / "gsplat_cuda.so").write_bytes(lzma.decompress(compiled.read_bytes()))
        (site / "gsplat" / "csrc.py").write_text(COMPILED)


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit, by nvcc's own word: what PATH finds may be a wrapper that lies elsewhere."""
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        return None
    told = subprocess.run([nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True)
    tops = [line.split("TOP=", 1)[1] for line in told.stderr.splitlines() if "TOP=" in line]
    return Path(tops[0].strip()).resolve() if tops else None


class Stage:
    """A command that has been started; what it says goes to a file of its own."""

    def __init__(self, name: str, command: list[str], logs: Path, env: dict[str, str]) -> None:
        self.name, self.begin, self.file = name, time.monotonic(), logs / f"{name}.log"
        self.said = open(self.file, "w")  # noqa: SIM115  # closed by end()
        self.said.write(f"=== {name}: {shlex.join(command)}\n")
        self.said.flush()
        self.process = subprocess.Popen(command, stdout=self.said, stderr=self.said, env=env, start_new_session=True)

    def end(self, limit: float) -> tuple[int, str]:
        """Exit code, and how it ended within `limit` seconds; what it left running is ended with it."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            code = 124
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.said.close()
        took = time.monotonic() - self.begin
        return code, f"{took:.1f} s, " + ("cut off" if code == 124 else f"exit {code}")


class Stages:
    """Runs commands, one after another or side by side, within so many seconds in all."""

    def __init__(self, out: Path, seconds: float, env: dict[str, str]) -> None:
        self.out, self.end, self.env, self.code = out, time.monotonic() + seconds, env, 0
        self.logs = Path(tempfile.mkdtemp(prefix="lpm-stages-"))
        self.running: dict[str, Stage] = {}
        out.mkdir(parents=True, exist_ok=True)
        for name in ("stages.txt", "log.txt"):
            (out / name).write_text("")

    def left(self) -> float:
        return self.end - time.monotonic()

    def start(self, name: str, command: list[str]) -> None:
        """Begins a stage, to be awaited by finish()."""
        self.running[name] = Stage(name, command, self.logs, self.env)

    def finish(self, name: str, limit: float) -> bool:
        """Whether the stage ends well within `limit` seconds from now."""
        stage = self.running.pop(name, None)
        if stage is None:
            return False
        code, told = stage.end(max(1, min(limit, self.left() - 3)))
        with open(self.out / "log.txt", "a") as log:
            log.write(stage.file.read_text(errors="replace"))
        stage.file.unlink()
        return self._tell(name, told, code)

    def run(self, name: str, limit: float, command: list[str]) -> bool:
        """Whether the stage ended well within `limit` seconds."""
        if min(limit, self.left() - 3) < 5:
            return self._tell(name, "left out, no time", 1)
        self.start(name, command)
        return self.finish(name, limit)

    def stop(self) -> None:
        """Ends what still runs."""
        for name in list(self.running):
            self.finish(name, 0)

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


def python(*words: str) -> list[str]:
    """A command in this Python, in which the checkout does not come before what was unpacked."""
    return [sys.executable, "-P", *words]


def entry(module: str, function: str, *words: str) -> list[str]:
    """One of the commands that an installer would have made."""
    code = f"import sys; from {module} import {function}; sys.argv[0] = {module!r}; {function}()"
    return python("-c", code, *words)


def commands(out: Path, data: Path, device: str, steps: int) -> list[list[str]]:
    """What a person does with nerfstudio: train, measure, export, look."""
    run = out / "ns" / "fox" / "lpm-splat" / "0"
    train = ["lpm-splat", "--data", str(data / "fox"), "--output-dir", str(out / "ns"), "--timestamp", "0"]
    train += ["--vis", "tensorboard", "--max-num-iterations", str(steps), "--machine.device-type", device]
    train += ["--pipeline.model.with-lpips", "False"]  # its weights come over the network
    pictures = ["--output-path", str(out / "ns_eval.json"), "--render-output-path", str(out / "ns_pictures")]
    ply = str(out / "fox.ply")
    return [
        entry("nerfstudio.scripts.train", "entrypoint", *train),
        entry("nerfstudio.scripts.eval", "entrypoint", "--load-config", str(run / "config.yml"), *pictures),
        entry("lpm.formats.cli", "export_main", "ply", str(run), ply),
        entry("lpm.formats.inspect", "inspect_main", ply, "--render", str(out / "fox.png")),
    ]


def moving(work: Path, device: str, steps: int) -> list[list[str]]:
    """A scene that moves, made here and trained on."""
    scene, run = str(work / "mover"), str(work / "moving")
    options = ["--out", run, "--device", device, "--no-page", "--steps", str(steps), "--model.no-with-lpips"]
    return [
        entry("lpm.scenes.cli", "main", "make", "mover", scene, "--cams", "4", "--frames", "10", "--size", "160x120"),
        entry("lpm.train.cli", "main", scene, "--moving", *options),
    ]


def beside(work: Path, data: Path, device: str, runs: list[str]) -> dict[str, list[str]]:
    """Runs SCENE/METHOD/STEPS that share the GPU: for what they reach, not for how long they take."""
    commands = {}
    for run in runs:
        scene, method, steps = run.split("/")
        name = f"{scene}-{method}-{steps}"
        commands[name] = python(
            "benchmarks/gpu.py", "--data", str(data), "--scenes", scene, "--methods", method, "--no-kernels",
            "--device", device, "--steps", steps, "--limit", "500", "--out", str(work / f"{name}.json"),
            "--after", str(work / "turn-beside"),
        )  # fmt: skip
    return commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=540, help="of all stages together")
    parser.add_argument("--gsplat", default="1.4.0")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES[:-1])
    parser.add_argument("--tests", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--beside", nargs="+", default=LONG, help="SCENE/METHOD/STEPS, at the end, all at once")
    parser.add_argument("--beside-seconds", type=float, default=0, help="kept for them")
    parser.add_argument("--scenes", nargs="+", default=["fox", "snowmiku"])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--steps", type=int, default=7_000)
    parser.add_argument("--points", type=int, default=1_000_000, help="for the kernels and events")
    parser.add_argument("--size", nargs=2, default=["1600", "1067"], help="for the events")
    parser.add_argument(
        "--twice", default="1500", help="steps of the seed that the events' benchmark runs twice; 0: none"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--site", type=Path, default=Path("/tmp/lpm_gpu/site"), help="where the wheels go")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "/tmp/lpm_gpu/out")))
    options = parser.parse_args()
    out, work, data = options.out, options.site.parent / "work", KIT / "data"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    stages = Stages(out, options.seconds, environment(options, options.site))
    about = "nvidia-smi; nvcc --version; g++ --version; python3 -V; nproc; uname -r; "
    about += f"{sys.executable} -c 'import torch, numpy; print(torch.__version__, numpy.__version__)'"
    stages.start("machine", ["sh", "-c", about])
    unpack(options.site, options.gsplat)
    capability = "torch.cuda.get_device_capability()"
    ours = f"import torch; from lpm.cuda.build import build, build_cuda; print(build(), build_cuda({capability}))"
    theirs = "from gsplat.cuda._backend import _C; import gsplat; assert _C is not None; print(gsplat.__version__, _C)"
    if options.device == "cpu":
        ours, theirs = "from lpm.cuda.build import build; print(build())", "import gsplat"
    stages.start("build-gsplat", python("-c", theirs))
    stages.run("build-ours", 120, python("-c", ours))
    stages.finish("machine", 30)
    stages.finish("build-gsplat", 300)
    turn = {name: work / f"turn-{name}" for name in ("events", "train", "beside")}
    together = {}
    shape = ["--points", str(options.points), "--device", options.device]
    if "events" in options.stages:
        command = ["benchmarks/gpu_event.py", *shape, "--size", *options.size, "--out", str(work / "event.json")]
        command += ["--twice", options.twice]
        stages.start("events", [sys.executable, *command, "--after", str(turn["events"])])  # it imports its neighbours
    if "train" in options.stages:
        command = ["benchmarks/gpu.py", "--data", str(data), *shape, "--steps", str(options.steps)]
        command += ["--limit", "110", "--out", str(out / "training.json"), "--after", str(turn["train"])]
        stages.start("train", python(*command, "--methods", *options.methods, "--scenes", *options.scenes))
    if "beside" in options.stages:
        together = beside(work, data, options.device, options.beside)
        for name, command in together.items():
            stages.start(name, command)
    if "tests" in options.stages:
        pytest = python("-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "--timeout", "120", "-rs")
        for name in options.tests:
            stages.start(name, [*pytest, *TESTS[name]])
    for name, steps in (
        ("commands", commands(work, data, options.device, options.steps)),
        ("moving", moving(work, options.device, max(100, options.steps // 5))),
    ):
        if name in options.stages:
            stages.start(name, ["sh", "-c", " && ".join(map(shlex.join, steps))])
    for name in list(stages.running):
        if name not in turn and name not in together:
            stages.finish(name, 150)
    for name, limit in (("events", 110), ("train", None)):
        if name in stages.running:
            turn[name].touch()
            stages.finish(name, stages.left() - options.beside_seconds if limit is None else limit)
            keep(work, out)
    turn["beside"].touch()
    for name in together:
        stages.finish(name, stages.left())
    stages.stop()
    print("\n".join(failures(out)))
    table = out / "training.md"
    print(table.read_text() if table.exists() else "no training")
    (work / "asked.json").write_text(json.dumps({k: str(v) for k, v in vars(options).items()}, indent=1) + "\n")
    keep(work, out)
    raise SystemExit(stages.code)


def keep(work: Path, out: Path) -> None:
    """One file of what the commands made and is worth looking at; PLYs and checkpoints are too large."""
    kinds = (".json", ".jsonl", ".jpg", ".png", ".toml", ".txt")
    wanted = [path for path in sorted(work.rglob("*")) if path.suffix in kinds and path.stat().st_size < 2**21]
    with zipfile.ZipFile(out / "made.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in wanted:
            archive.write(path, path.relative_to(work))


if __name__ == "__main__":
    main()
