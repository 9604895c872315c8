#!/usr/bin/env python3
"""What an open page that nobody moves costs a training run: time per step with it against without, in one run.

    python benchmarks/viewer_cost.py --data SCENE [--steps 4500] [--window 300] [--out FILE.json]

The page is a client without a browser that takes whatever the viewer sends: a browser draws with the machine's GPU or
with another machine's, and here its software renderer would train against us on the same cores. It comes and goes
every `--window` steps; each window with it is compared with those before and after. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import websockets
from event_cost import trainer_on

SETTLE = 0.33
"""Share of a window after its begin that does not count: the page loads, the first pictures are drawn."""


async def look(url: str, pipe: Any) -> None:
    """Connects and reads all, until told to leave."""
    camera = {"type": "ViewerCameraMessage", "wxyz": [0.5, 0.5, -0.5, -0.5], "position": [6.0, 0.0, 0.0], "fov": 1.3,
              "aspect": 1.5, "look_at": [0.0, 0.0, 0.0], "up_direction": [0.0, 0.0, 1.0]}  # fmt: skip
    got = 0
    async with websockets.connect(url, max_size=None, compression=None) as socket:
        await socket.send(msgspec.msgpack.encode(camera))
        while not pipe.poll():
            try:
                got += len(await asyncio.wait_for(socket.recv(), 0.2))
            except asyncio.TimeoutError:
                continue
    pipe.recv()
    pipe.send(got)


def client(url: str, pipe: Any) -> None:
    """Looks from one word in the pipe to the next."""
    pipe.send("ready")
    while pipe.recv():
        asyncio.run(look(url, pipe))


def main() -> None:
    """Trains, prints the shares and, with --out, writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=0.5, help="of the images")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--window", type=int, default=300)
    parser.add_argument("--cap", type=int, default=60_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    window, ends, sent = options.window, [], []
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_on(options.data, options.scale, options.steps, options.cap, folder, vis="viewer")
        url = f"ws://127.0.0.1:{trainer.viewer_state.viser_server.get_port()}"
        page = multiprocessing.get_context("spawn").Process(target=client, args=(url, theirs), daemon=True)
        page.start()
        ours.recv()
        update = trainer._update_viewer_state

        def step_done(step: int) -> None:
            update(step)
            ends.append(time.perf_counter())
            if (step + 1) % window == 0 and step + 1 < options.steps:
                ours.send(True)  # come, or go
                if (step + 1) // window % 2 == 0:
                    sent.append(ours.recv())

        trainer._update_viewer_state = step_done
        trainer.train()
        trainer.shutdown()
        page.terminate()
    skip = int(SETTLE * window)
    each = [
        (ends[k + window - 1] - ends[k + skip]) / (window - 1 - skip) for k in range(0, len(ends) - window + 1, window)
    ]
    # The first window warms up, so the first one with a page has nothing to be compared with.
    ratios = [2 * each[k] / (each[k - 1] + each[k + 1]) for k in range(3, len(each) - 1, 2)]
    result = {
        "slowdown_median": round(statistics.median(ratios), 4), "slowdown_mean": round(statistics.mean(ratios), 4),
        "slowdowns": [round(r, 3) for r in ratios], "ms_per_step": [round(1e3 * s, 1) for s in each],
        "MB_sent_per_window": [round(n / 1e6, 2) for n in sent],
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(vars(options) | result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
