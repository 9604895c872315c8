"""The replay as one HTML file: plotly and all data are in it, and it asks for nothing from anywhere."""

from __future__ import annotations

import base64
import dataclasses
import html
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.files import Progress, atomic_file, bar
from lpm.viewer.boxes import EDGES, EDIT_COLORS, ZONE_COLORS
from lpm.viewer.replay.curves import css, plots
from lpm.viewer.replay.data import EDITS, Replay, safe_json
from lpm.viewer.replay.recording import CLOUD_LIMIT, LIMIT, evenly_spaced

MOST_BYTES = 15_000_000
"""Size of a file, plotly's 5 MB included. Points are thinned for it first, then events are left out."""
MOST_CLOUDS = 20
"""Clouds of all points in a file; each is shown until the next."""

STYLE = """
body { font: 14px sans-serif; margin: 0; color: #222; background: #fff; }
#controls { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; padding: 8px 14px; }
#controls { background: #f2f3f5; }
#controls label { display: flex; gap: 6px; align-items: center; }
#event { width: 32vw; }
button { min-width: 70px; padding: 4px 10px; }
#text { padding: 6px 14px; min-height: 2.6em; }
#both { display: flex; flex-wrap: wrap; }
#scene { flex: 3 1 600px; height: 82vh; }
#plots { flex: 2 1 400px; height: 82vh; }
"""

SCRIPT = """
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const floats = text => new Float32Array(bytes(text).buffer);
const get = id => document.getElementById(id);
const columns = flat => [0, 1, 2].map(i => Array.from({length: flat.length / 3}, (_, row) => flat[3 * row + i]));
// Corners of boxes, 24 numbers each, to lines with gaps.
const lines = flat => {
  const out = [[], [], []];
  for (let box = 0; box < flat.length; box += 24)
    for (const [a, b] of DATA.edges)
      for (let i = 0; i < 3; i++) out[i].push(flat[box + 3 * a + i], flat[box + 3 * b + i], null);
  return out;
};
const joined = parts => {
  const out = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
};
let timer = null;
function draw() {
  const index = Number(get("event").value), last = Number(get("last").value), event = DATA.events[index];
  const xyz = DATA.kinds.map(kind => lines(floats(event.boxes[kind])));
  for (const name of DATA.edits)
    xyz.push(columns(joined(DATA.events.slice(Math.max(0, index + 1 - last), index + 1).map(e => floats(e[name])))));
  const cloud = event.cloud === null ? null : DATA.clouds[event.cloud];
  xyz.push(cloud ? columns(floats(cloud.means)) : [[], [], []]);
  const every = xyz.map((_, i) => i);
  const along = i => xyz.map(c => c[0].length ? c[i] : [null]);  // a name without any point would lose its switch
  Plotly.restyle("scene", {x: along(0), y: along(1), z: along(2)}, every);
  const rgb = cloud && cloud.colors ? bytes(cloud.colors) : null;
  const paint = (_, i) => `rgb(${rgb.subarray(3 * i, 3 * i + 3)})`;
  const color = rgb ? xyz[xyz.length - 1][0].map(paint) : "rgb(140,140,140)";
  Plotly.restyle("scene", {"marker.color": [color]}, [every.length - 1]);
  Plotly.relayout("plots", {"shapes[0].x0": event.step, "shapes[0].x1": event.step});
  get("text").textContent = event.text;
  get("number").textContent = `${index + 1} of ${DATA.events.length}`;
  get("lasts").textContent = last === 1 ? "1 event" : `${last} events`;
}
function pause() { clearInterval(timer); timer = null; get("play").textContent = "Play"; }
function play() {
  if (timer !== null) return pause();
  const slider = get("event"), end = DATA.events.length - 1;
  if (Number(slider.value) >= end) { slider.value = 0; draw(); }
  get("play").textContent = "Pause";
  timer = setInterval(() => {
    if (Number(slider.value) >= end) return pause();
    slider.value = Number(slider.value) + 1;
    draw();
  }, 1000 / Number(get("speed").value));
}
get("event").oninput = get("last").oninput = draw;
get("play").onclick = play;
get("speed").onchange = () => { if (timer !== null) { pause(); play(); } };
Promise.all([
  Plotly.newPlot("scene", DATA.traces, DATA.layout, {responsive: true, displayModeBar: false}),
  Plotly.newPlot("plots", DATA.plots.data, DATA.plots.layout, {responsive: true, displayModeBar: false}),
]).then(() => { draw(); window.ready = true; });
"""

BODY = """<div id="controls"><button id="play">Play</button>
<label>Event <input id="event" type="range" min="0" max="{most}" step="1" value="0"> <span id="number"></span></label>
<label>Speed <select id="speed"><option>1</option><option selected>2</option><option>5</option><option>10</option>
</select> a second</label>
<label>Edits of the last <input id="last" type="range" min="1" max="20" step="1" value="1">
<span id="lasts"></span></label><span>Click a name beside the scene to hide or show it.</span></div>
<div id="text"></div><div id="both"><div id="scene"></div><div id="plots"></div></div>"""


def _encoded(values: NDArray[np.generic], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def _fewer_clouds(replay: Replay) -> Replay:
    steps = [s.step for s in replay.snapshots if s.means is not None]
    kept = {*steps[:: -(-len(steps) // MOST_CLOUDS) or 1], *steps[-1:]}
    rest = [s if s.step in kept else dataclasses.replace(s, means=None, colors=None) for s in replay.snapshots]
    return dataclasses.replace(replay, snapshots=rest)


def _events(replay: Replay, limit: int, every: int, progress: Progress = bar) -> dict[str, Any]:
    """Events and clouds as the page's script reads them: every `every`-th, with at most `limit` points of an edit."""
    events: list[dict[str, Any]] = []
    clouds: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    replay = _fewer_clouds(replay)
    chosen = range(len(replay.events))[::-1][::every][::-1]  # the last one is always there
    for i in progress(chosen, "writing"):
        cloud = replay.cloud(i)
        if cloud is not None and cloud.means is not None and cloud.step not in numbers:
            numbers[cloud.step] = len(clouds)
            most = CLOUD_LIMIT * limit // LIMIT
            colors = None if cloud.colors is None else evenly_spaced(cloud.colors, most)
            clouds.append({
                "means": _encoded(evenly_spaced(cloud.means, most), "<f4"),
                "colors": None if colors is None else _encoded(colors, "u1"),
            })  # fmt: skip
        edits = replay.recent(i, min(i + 1, every))
        events.append({
            "step": replay.events[i].step,
            "text": replay.events[i].line(),
            "boxes": {kind: _encoded(corners, "<f4") for kind, corners in replay.boxes(i).items()},
            "cloud": None if cloud is None else numbers[cloud.step],
            **{name: _encoded(evenly_spaced(edits[name], limit), "<f4") for name in EDITS},
        })  # fmt: skip
    return {"events": events, "clouds": clouds}


def _traces() -> list[dict[str, Any]]:
    empty = {"type": "scatter3d", "x": [], "y": [], "z": [], "showlegend": True, "hoverinfo": "name"}
    zones = [
        {**empty, "name": f"zone: {kind}", "mode": "lines", "line": {"color": css(color), "width": 5}}
        for kind, color in ZONE_COLORS.items()
    ]
    edits = [
        {**empty, "name": name, "mode": "markers",
         "marker": {"color": css(EDIT_COLORS[name]), "size": 4, "opacity": 0.4 if name == "removed" else 0.9,
                    "line": {"width": 0}}}
        for name in EDITS
    ]  # fmt: skip
    cloud = {**empty, "name": "all points", "mode": "markers", "hoverinfo": "skip",
             "marker": {"size": 2, "opacity": 0.8, "line": {"width": 0}}}  # fmt: skip
    return [*zones, *edits, cloud]


def _layout(replay: Replay) -> dict[str, Any]:
    centre, radius = replay.bounds
    hidden = {
        "showgrid": False,
        "showbackground": False,
        "zeroline": False,
        "showticklabels": False,
        "showspikes": False,
    }
    axes = {
        f"{axis}axis": {**hidden, "title": {"text": ""}, "range": [c - 1.6 * radius, c + 1.6 * radius]}
        for axis, c in zip("xyz", centre.tolist(), strict=True)
    }
    camera = {"x": 0.7, "y": -1.1, "z": 0.6}
    scene = {**axes, "aspectmode": "cube", "camera": {"camera": camera}, "dragmode": "orbit"}
    legend = {"x": 0, "y": 1, "itemsizing": "constant", "bgcolor": "rgba(255,255,255,0.8)"}
    return {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "legend": legend, "uirevision": "same"}


def page(replay: Replay, limit: int = LIMIT, every: int = 1, progress: Progress = bar) -> bytes:
    """The whole file; see _events for `limit` and `every`."""
    from plotly.offline import get_plotlyjs

    curves = plots(replay)
    curves.add_shape(type="line", xref="x", yref="paper", y0=0, y1=1, x0=0, x1=0, line={"color": "#5a5a5a"})
    curves.update_layout(autosize=True)
    data = {
        **_events(replay, limit, every, progress), "kinds": list(ZONE_COLORS), "edits": list(EDITS),
        "edges": EDGES.tolist(), "traces": _traces(), "layout": _layout(replay),
        "plots": {"data": [{**t.to_plotly_json(), "x": list(t.x), "y": list(t.y)} for t in curves.data],
                  "layout": curves.layout.to_plotly_json()},
    }  # fmt: skip
    text = "".join([
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(replay.name)}</title>',
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>",
        BODY.format(most=len(data["events"]) - 1),
        f"<script>const DATA = {safe_json(data)};{SCRIPT}</script></body></html>\n",
    ])  # fmt: skip
    return text.encode()


def write_html(out: Path, replay: Replay, most_bytes: int = MOST_BYTES) -> None:
    """Writes `replay` to `out`, whole or not at all, and says what had to be left out to keep it small."""
    limit, every = LIMIT, 1
    text = page(replay, limit, every)
    while len(text) > most_bytes and every < len(replay.events):
        if limit > LIMIT // 16:
            limit //= 2
        else:
            every *= 2
        text = page(replay, limit, every)
    with atomic_file(out) as file:
        file.write(text)
    notes = [f"at most {limit} points of each edit are shown"] if limit < LIMIT else []
    notes += [f"every {every}th event is shown"] if every > 1 else []
    print(f"{out}: {len(replay.events)} events, {len(text) / 1e6:.1f} MB" + "".join(f"; {note}" for note in notes))
