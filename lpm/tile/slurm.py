"""A script for SLURM: an array of jobs, one a tile."""

from __future__ import annotations

import shlex
from pathlib import Path

from lpm.files import atomic_file

SCRIPT = """#!/bin/bash
# Trains the tiles of {folder}, one a job: sbatch {script}
# A job that is ended early goes on from its last checkpoint when it is submitted again.
#SBATCH --job-name=lpm-tile
#SBATCH --array=0-{last}
#SBATCH --time={hours}:00:00
#SBATCH --cpus-per-task={cpus}
#SBATCH --gpus-per-task={gpus}
#SBATCH --requeue
#SBATCH --output={logs}/%x-%A_%a.txt
names=({names})
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
exec lpm-tile train {folder} --only "${{names[$SLURM_ARRAY_TASK_ID]}}" --args={args}
"""


def write(folder: Path, out: Path, names: list[str], args: str, gpus: int, cpus: int, hours: int) -> None:
    """Writes the script that trains the tiles `names` of `folder` to `out`; see lpm-tile slurm."""
    place = folder.resolve()
    text = SCRIPT.format(
        folder=shlex.quote(str(place)), script=shlex.quote(str(out)), last=len(names) - 1, hours=hours, cpus=cpus,
        gpus=gpus, logs=place, names=" ".join(map(shlex.quote, names)), args=shlex.quote(args),
    )  # fmt: skip
    if gpus == 0:
        text = text.replace("#SBATCH --gpus-per-task=0\n", "")
    with atomic_file(out) as file:
        file.write(text.encode())
    out.chmod(0o755)
