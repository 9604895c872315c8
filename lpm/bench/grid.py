"""Makes the runs that are missing, each in a process of its own, and tells how far they are."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lpm.bench import store
from lpm.bench.jobs import Job, key_of

SAMPLE_SIZE, SAMPLE_VIEWS = (320, 240), 40


def sample_scene(name: str) -> Path:
    """The folder of a sample scene, still or moving, in the user's cache; made at the first call."""
    from lpm.files import cache_folder
    from lpm.scenes.samples.make import make
    from lpm.scenes.samples.moving import CAMS, CLIPS, FRAMES, make_clip

    shots = f"{CAMS}x{FRAMES}" if name in CLIPS else str(SAMPLE_VIEWS)
    folder = cache_folder() / "scenes" / f"{name}-{SAMPLE_SIZE[0]}x{SAMPLE_SIZE[1]}-{shots}"
    if (folder / "truth.json").is_file():
        return folder
    return make_clip(name, folder, size=SAMPLE_SIZE) if name in CLIPS else make(name, folder, SAMPLE_VIEWS, SAMPLE_SIZE)


def run_all(jobs: Sequence[Job], out: Path, at_once: int, command: str, console: Console) -> list[str]:
    """Makes the runs that `out` lacks, `at_once` side by side; the titles of those that failed.

    A failed run leaves its whole output in OUT/logs/TITLE.log, and does not stop the others.
    """
    done = {key_of(run) for run in store.read(out)["runs"]}
    todo = [job for job in jobs if job.key not in done]
    console.print(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them made before; results in {out}")
    folders = {job.data: str(sample_scene(job.data[7:])) for job in todo if job.data.startswith("sample:")}
    todo = [replace(job, data=folders.get(job.data, job.data)) for job in todo]
    failed: list[str] = []
    writing = threading.Lock()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("{task.fields[left]}"))  # fmt: skip
    with Progress(*columns, console=console) as progress:
        steps = progress.add_task("all steps", total=sum(job.steps for job in todo), left="")
        start = time.monotonic()

        def advance(amount: int) -> None:
            progress.advance(steps, amount)
            task = progress.tasks[0]
            share = task.completed / max(1, task.total or 1)
            left = (time.monotonic() - start) * (1 / share - 1) if share > 0 else 0.0
            progress.update(steps, left=f"{left / 60:.0f} min left" if share > 0 else "")

        def run(job: Job) -> None:
            task = progress.add_task(job.title, total=job.steps, left="")
            result, output = _run(job, lambda step: _follow(progress, task, step, advance))
            _follow(progress, task, job.steps, advance)  # a run that failed has no steps left either
            progress.remove_task(task)
            with writing:
                if result is None:
                    failed.append(job.title)
                    log = out / "logs" / f"{job.title}.log"
                    log.parent.mkdir(parents=True, exist_ok=True)
                    log.write_text(output)
                    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
                    console.print(f"[red]{job.title} failed[/red]: {last} (all of it: {log})")
                else:
                    store.add(out, result, command)
                    console.print(
                        f"{job.title}: {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}, {result['points']:,} "
                        f"points, {result['seconds']['total']:.0f} s, {result['peak_memory_mb']} MB"
                    )

        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(run, todo))
    return failed


def _follow(progress: Progress, task: TaskID, step: int, advance: Any) -> None:
    current = next(t for t in progress.tasks if t.id == task)
    advance(step - int(current.completed))
    progress.update(task, completed=step)


def _run(job: Job, on_step: Callable[[int], None]) -> tuple[dict[str, Any] | None, str]:
    """The result of one process, None if it failed, and all that it wrote."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        asked, made = Path(folder) / "job.json", Path(folder) / "result.json"
        asked.write_text(json.dumps(asdict(job)))
        process = subprocess.Popen(
            [sys.executable, "-m", "lpm.bench.run", str(asked), str(made)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            step = re.fullmatch(r"BENCH (\d+)\n", line)
            if step is None:
                lines.append(line)
            else:
                on_step(int(step[1]))
        if process.wait() < 0:  # it had no chance to say why
            lines.append(f"ended by {signal.Signals(-process.returncode).name}\n")
        # A result that is there is whole, however its process ended.
        result = json.loads(made.read_text()) if made.is_file() else None
    return result, "".join(lines)
