"""`lpm-scene check`: whether a scene can be what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro


def check(
    data: tyro.conf.Positional[Path],
    /,
    json: bool = False,
    outside_files: bool = False,
    lens_fov: float | None = None,
) -> None:
    """Check whether poses, lenses, points, masks and photos of a scene can be what they say; exit code 1 if not.

    Args:
        data: the scene's folder, or its transforms.json.
        json: print one JSON object instead of lines.
        outside_files: the scene may name files outside of its folder.
        lens_fov: degrees across of views of photos by fisheyes; by default all that is seen, in several views if need.
    """
    import json as text

    from lpm.plausibility.check import check as look
    from lpm.scenes.read import read_scene

    scene = read_scene(data, outside_files, lens_fov)
    report = look(scene)
    if json:
        print(text.dumps({"scene": str(data), "notes": scene.notes, **report.as_json()}, indent=1))
    else:
        for note in scene.notes:
            print(f"note      {note}")
        for finding in report.findings:
            print(f"{'ERROR' if finding.serious else 'warning':9} {finding.kind}: {finding.text}")
            print(f"{'':9} -> {finding.remedy}")
        for name, value in (("looked at", report.told()), ("found", report.verdict())):
            print(f"{name:9} {value}")
    if report.serious:
        sys.exit(1)
