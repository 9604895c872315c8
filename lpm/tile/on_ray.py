"""Tiles as tasks of a Ray cluster: as many at a time as it has GPUs (or machines), again where a machine dies."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from lpm.checks import fail, need
from lpm.tile.train import command_of, finish

TRIES = 5
"""Machines that may die under one tile before it is given up."""


def task(folder: str, name: str, args: str) -> str:
    """Trains a tile in this process of Ray's, which ends afterwards; what went wrong, or nothing."""
    place = Path(folder)
    if not (place / "tiles.json").is_file():
        return f"{folder} is not on this machine; the tiles' folder must be on a disk that all machines share"
    from lpm.train.cli import main

    sys.argv = ["lpm-train", *command_of(place, name, args)]
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    if code:
        return f"lpm-train ended with code {code}"
    finish(place, name, 0)
    return ""


def train(folder: Path, names: list[str], args: str, address: str) -> None:
    """Trains the tiles `names` of `folder`, which all machines must see under the same path.

    A tile takes a GPU where the cluster has any, else all CPUs of its smallest machine. Where a machine dies, its tile
    goes on from its last checkpoint on another one.

    Args:
        address: "ray": the cluster that this machine is in, else one of this machine alone; or ray://HOST:PORT, or
            HOST:PORT.

    Raises:
        LpmError: Ray is missing or the cluster cannot be reached; a tile failed (the others are trained first).
    """
    need("ray", "ray")
    import ray as installed

    ray: Any = installed  # its own types say otherwise of what it takes
    known = {} if address == "ray" else {"address": address}
    try:
        ray.init(**known, logging_level=logging.ERROR, log_to_driver=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        fail("--on", f"{address} cannot be reached ({str(error).splitlines()[0]})", "the address of a Ray cluster")
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = any(resources.get("GPU", 0) >= 1 for resources in alive)
        cpus = 1 if gpus else min(int(resources.get("CPU", 1)) or 1 for resources in alive)
        # A process for each tile: its memory is given back.
        remote = ray.remote(num_gpus=int(gpus), num_cpus=cpus, max_calls=1, max_retries=TRIES)(task)
        waiting = {remote.options(name=name).remote(str(folder.resolve()), name, args): name for name in names}
        print(f"{len(names)} tiles on {len(alive)} machines, {'a GPU' if gpus else f'{cpus} CPUs'} each", flush=True)
        failed = {}
        while waiting:
            [done], _ = ray.wait(list(waiting), num_returns=1)
            name = waiting.pop(done)
            try:
                wrong = ray.get(done)
            except ray.exceptions.RayError as error:
                wrong = f"given up after {TRIES + 1} tries ({type(error).__name__})"
            print(f"{name}: {wrong or 'trained'}; {len(waiting)} to go", flush=True)
            if wrong:
                failed[name] = wrong
    finally:
        ray.shutdown()
    if failed:
        name = next(iter(failed))
        fail(name, failed[name], "a whole run", f"repeat to go on; failed: {', '.join(failed)}")
