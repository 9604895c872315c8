#!/usr/bin/env python3
"""Times the CPU rasterizer, forward and backward, beside the prototype it grew from, and writes the table.

    python benchmarks/raster_cpu.py --prototype FOLDER      # FOLDER holds gs_c.cpp, rast.py, rast_fused.py

Both run in one process on the same tensors, in turn, repetition by repetition, so that whatever else the machine does
falls on both. Given are the least and the median wall time on all threads, and, as a measure of the work that a busy
machine hardly disturbs, the least CPU time on one thread.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lpm.cuda.build import FLAGS, find_compiler
from lpm.cuda.native import NativeLibrary, native
from lpm.render.rasterize import rasterize

RESULTS = Path(__file__).resolve().parent / "results"
ROWS = [(20_000, 480, 270), (50_000, 480, 270), (50_000, 960, 540), (200_000, 960, 540)]
RECORD = "## What each step brought"  # from here on, the page is kept as it is
Step = Callable[[], None]


def make_scene(n: int, width: int, height: int, seed: int = 1) -> dict[str, Tensor]:
    """A room's walls and four balls in it, covered by flat splats of the surface's spacing, as after training."""
    g = torch.Generator().manual_seed(seed)
    on_walls = n // 2
    wall = torch.rand(on_walls, 3, generator=g) * 2 - 1
    side = torch.randint(0, 6, (on_walls,), generator=g)
    wall[torch.arange(on_walls), side // 2] = (side % 2 * 2 - 1).float()
    size = torch.tensor([4.0, 2.5, 4.0])
    walls = wall * size + torch.tensor([0.0, 0.0, 2.0])
    area_walls = 8 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0])

    on_balls = n - on_walls
    centers = torch.tensor([[-1.2, 0.5, 2.5], [1.0, 0.8, 2.0], [0.2, -0.6, 3.5], [0.0, 1.2, 4.5]])
    radii = torch.tensor([0.6, 0.5, 0.8, 0.7])
    ball = torch.randint(0, 4, (on_balls,), generator=g)
    direction = torch.nn.functional.normalize(torch.randn(on_balls, 3, generator=g), dim=-1)
    off = radii[ball][:, None] * (1 + 0.03 * torch.randn(on_balls, 1, generator=g))
    area_balls = 4 * math.pi * radii.square().sum()
    spacing = torch.cat([(area_walls / on_walls).expand(on_walls), (area_balls / on_balls).expand(on_balls)]).sqrt()

    scales = torch.exp(0.5 * torch.randn(n, 3, generator=g)) * 0.7 * spacing[:, None]
    scales[:, 2] *= 0.2
    viewmat = torch.eye(4)
    viewmat[0, 0] = viewmat[2, 2] = math.cos(0.05)
    viewmat[0, 2], viewmat[2, 0], viewmat[2, 3] = math.sin(0.05), -math.sin(0.05), 1.5
    K = torch.tensor([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
    sh = torch.randn(n, 16, 3, generator=g) * 0.1
    sh[:, 0] *= 8
    return dict(
        means=torch.cat([walls, centers[ball] + direction * off]),
        quats=torch.randn(n, 4, generator=g),
        scales=scales,
        opacities=torch.sigmoid(torch.randn(n, generator=g) * 2 - 0.3),
        colors=sh,
        viewmats=viewmat[None],
        Ks=K[None],
    )


def make_step(function: Callable, scene: dict[str, Tensor], width: int, height: int, form: str = "whole") -> Step:
    """One forward and backward pass as in training: harmonics of degree 3, absolute gradients, means2d retained.

    `form` of the harmonics: one parameter ("whole"), or two that are given as a "pair" or "concatenated" at each step.
    """
    learned = {k: v.clone().requires_grad_(k not in ("viewmats", "Ks")) for k, v in scene.items()}
    if form != "whole":
        sh = learned.pop("colors").detach()
        learned["sh0"], learned["shN"] = sh[:, :1].clone().requires_grad_(), sh[:, 1:].clone().requires_grad_()
    backgrounds = torch.zeros(1, 3)
    cotangent = torch.randn(1, height, width, 3)

    def step() -> None:
        for tensor in learned.values():
            tensor.grad = None
        inputs = dict(learned)
        if form != "whole":
            parts = inputs.pop("sh0"), inputs.pop("shN")
            inputs["colors"] = parts if form == "pair" else torch.cat(parts, 1)
        image, _, meta = function(
            **inputs, width=width, height=height, sh_degree=3, backgrounds=backgrounds, absgrad=True
        )
        meta["means2d"].retain_grad()
        image.backward(cotangent)

    return step


def load_prototype(folder: Path, work: Path) -> Callable:
    """Compiles the prototype into `work` and returns its function."""
    library = work / "libgs.so"
    subprocess.run([*find_compiler(), *FLAGS, "-shared", str(folder / "gs_c.cpp"), "-o", str(library)], check=True)
    os.environ["GS_LIB"] = str(library)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    return importlib.import_module("rast_fused").rasterization


def set_threads(threads: int) -> None:
    """For torch and ours, and for the prototype, which reads the number only once."""
    torch.set_num_threads(threads)
    if "rast" in sys.modules:
        sys.modules["rast"].lib().gs_threads(threads)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(steps: dict[str, Step], repetitions: int) -> dict[str, dict[str, float]]:
    """Runs the steps in turn; wall and CPU times in ms."""
    walls: dict[str, list[float]] = {name: [] for name in steps}
    cpus: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(-2, repetitions):
        for name, step in steps.items():
            cpu, wall = cpu_seconds(), time.perf_counter()
            step()
            if repetition >= 0:
                walls[name].append((time.perf_counter() - wall) * 1e3)
                cpus[name].append((cpu_seconds() - cpu) * 1e3)
    return {
        name: dict(
            wall_min_ms=min(walls[name]),
            wall_median_ms=statistics.median(walls[name]),
            cpu_min_ms=min(cpus[name]),
            cpu_median_ms=statistics.median(cpus[name]),
        )
        for name in steps
    }


def measure_stages(step: Step, repetitions: int) -> dict[str, float]:
    """Least CPU time, in ms, of each kernel of a step, and of what is left (torch, allocation)."""
    library = native()
    assert library is not None
    times: list[dict[str, float]] = []
    plain = NativeLibrary.call

    def timed(self, name, dtype, *arguments):
        start = cpu_seconds()
        result = plain(self, name, dtype, *arguments)
        times[-1][name] = times[-1].get(name, 0.0) + (cpu_seconds() - start) * 1e3
        return result

    NativeLibrary.call = timed
    try:
        for _ in range(repetitions):
            times.append({})
            start = cpu_seconds()
            step()
            whole = (cpu_seconds() - start) * 1e3
            times[-1]["rest"] = whole - sum(times[-1].values())
    finally:
        NativeLibrary.call = plain
    return {name: min(t[name] for t in times) for name in times[0]}


def peak_memory(function: str, prototype: Path | None, row: tuple[int, int, int]) -> float:
    """MB that three steps add at their peak to a fresh process that holds the scene."""
    command = [sys.executable, __file__, "--peak", function, *map(str, row)]
    if prototype:
        command += ["--prototype", str(prototype)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(function: Callable, row: tuple[int, int, int]) -> None:
    def status(key: str) -> float:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
        return int(line.split()[1]) / 1024

    make_step(function, make_scene(1000, 64, 64), 64, 64)()
    step = make_step(function, make_scene(*row), *row[1:])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    for _ in range(3):
        step()
    print(status("VmHWM") - before)


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((x.split(":")[1].strip() for x in cpuinfo.splitlines() if x.startswith("model name")), "unknown")
    widest = next((isa for isa in ("avx512f", "avx2", "avx") if f" {isa} " in cpuinfo), "sse2 or other")
    version = subprocess.run([*find_compiler(), "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    return dict(
        processor=model, vectors=widest, cores=os.cpu_count() or 0, threads=torch.get_num_threads(), compiler=version,
        flags=" ".join(FLAGS), torch=torch.__version__, python=platform.python_version(),
    )  # fmt: skip


def markdown(result: dict) -> str:
    lines = ["# CPU rasterizer, forward + backward", ""]
    lines += ["RGB, harmonics of degree 3, absgrad, float32, one camera. Times in ms.", ""]
    lines += ["Command: `" + result["command"] + "`", ""]
    lines += [f"- {key}: {value}" for key, value in result["machine"].items()]
    both = "prototype" in result["rows"][0]["times"]
    lines += ["", "| N, H x W | wall min | wall median | one thread | Mpixel/s | peak MB |"]
    lines += ["|---|---|---|---|---|---|"]
    if both:
        lines[-2] += " prototype: wall min | wall median | one thread | peak MB | ratio of wall min | of one thread |"
        lines[-1] += "---|---|---|---|---|---|"
    for row in result["rows"]:
        n, width, height = row["n"], row["width"], row["height"]
        t, work, peak = row["times"]["ours"], row["one_thread"], row["peak_mb"]
        line = f"| {n // 1000}k, {height} x {width} | {t['wall_min_ms']:.1f} | {t['wall_median_ms']:.1f} "
        line += f"| {work['ours']['cpu_min_ms']:.1f} | {width * height / t['wall_min_ms'] / 1e3:.1f} "
        line += f"| {peak['ours']:.0f} |"
        if both:
            p = row["times"]["prototype"]
            line += f" {p['wall_min_ms']:.1f} | {p['wall_median_ms']:.1f} "
            line += f"| {work['prototype']['cpu_min_ms']:.1f} | {peak['prototype']:.0f} "
            line += f"| {t['wall_min_ms'] / p['wall_min_ms']:.2f} "
            line += f"| {work['ours']['cpu_min_ms'] / work['prototype']['cpu_min_ms']:.2f} |"
        lines.append(line)
    lines += ["", "Share of the stages (one thread, least CPU time of each, ms; rest: torch and allocation):", ""]
    names = list(result["rows"][0]["stages_ms"])
    lines += ["| N, H x W | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in result["rows"]:
        cells = " | ".join(f"{row['stages_ms'][name]:.1f}" for name in names)
        lines.append(f"| {row['n'] // 1000}k, {row['height']} x {row['width']} | {cells} |")
    work_of = {(r["n"], r["width"]): r["one_thread"]["ours"]["cpu_min_ms"] for r in result["rows"]}
    lines += ["", "Growth of the work (one thread):", ""]
    lines.append(f"- 2.5x the points at 270 x 480: {work_of[50_000, 480] / work_of[20_000, 480]:.2f}x")
    lines.append(f"- 4x the points at 540 x 960: {work_of[200_000, 960] / work_of[50_000, 960]:.2f}x")
    lines.append(f"- 4x the pixels with 50k points: {work_of[50_000, 960] / work_of[50_000, 480]:.2f}x")
    lines += ["", "Harmonics as two parameters, given as a pair or concatenated at each step (one thread, ms):", ""]
    lines += ["| N, H x W | pair | concatenated |", "|---|---|---|"]
    for row in result["rows"]:
        pair, whole = (row["harmonics"][form]["cpu_min_ms"] for form in ("pair", "concatenated"))
        lines.append(f"| {row['n'] // 1000}k, {row['height']} x {row['width']} | {pair:.1f} | {whole:.1f} |")
    return "\n".join(lines) + "\n"


def with_record(table: str, path: Path) -> str:
    """`table`, followed by the section of `path` that was written by hand."""
    before = path.read_text() if path.exists() else ""
    return table + ("\n" + before[before.index(RECORD) :] if RECORD in before else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prototype", type=Path, default=os.environ.get("LPM_PROTOTYPE"), help="its folder")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--table", action="store_true", help="write the page again from the JSON, time nothing")
    parser.add_argument("--dry", action="store_true", help="print the table and write nothing")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    threads = arguments.threads or torch.get_num_threads()
    page = RESULTS / "raster_cpu.md"
    if arguments.table:
        page.write_text(with_record(markdown(json.loads((RESULTS / "raster_cpu.json").read_text())), page))
        return
    functions: dict[str, Callable] = {"ours": rasterize}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(arguments.prototype) if arguments.prototype else None
        if folder and (folder / "gs_c.cpp").exists():
            functions["prototype"] = load_prototype(folder, Path(work))
        else:
            print("no prototype (--prototype FOLDER or LPM_PROTOTYPE): timing ours alone", file=sys.stderr)
        if arguments.peak:
            name, *row = arguments.peak
            print_peak(functions[name], tuple(map(int, row)))
            return
        if native() is None:
            sys.exit("error: no native kernels here, so there is nothing to time")
        rows = []
        for n, width, height in ROWS:
            set_threads(threads)
            scene = make_scene(n, width, height)
            steps = {name: make_step(function, scene, width, height) for name, function in functions.items()}
            times = measure(steps, arguments.repetitions)
            set_threads(1)
            one_thread = measure(steps, arguments.repetitions)
            forms = {form: make_step(rasterize, scene, width, height, form) for form in ("pair", "concatenated")}
            harmonics = measure(forms, arguments.repetitions)
            stages = measure_stages(steps["ours"], arguments.repetitions)
            set_threads(threads)
            peak = {name: peak_memory(name, folder, (n, width, height)) for name in functions}
            row = dict(n=n, width=width, height=height, times=times, one_thread=one_thread)
            rows.append(dict(row, stages_ms=stages, peak_mb=peak, harmonics=harmonics))
            for name in functions:
                wall, work = times[name]["wall_min_ms"], one_thread[name]["cpu_min_ms"]
                print(f"{n} {height}x{width} {name}: {wall:.1f} ms, {work:.1f} ms on one thread", flush=True)
    command = shlex.join(["python", *(a if "/" not in a or a == sys.argv[0] else "FOLDER" for a in sys.argv)])
    result = dict(command=command, machine=machine(), rows=rows)
    if arguments.dry:
        print(markdown(result))
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "raster_cpu.json").write_text(json.dumps(result, indent=1) + "\n")
    page.write_text(with_record(markdown(result), page))


if __name__ == "__main__":
    main()
