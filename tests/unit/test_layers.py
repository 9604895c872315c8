"""The way of the data is the way of the imports (CONTRIBUTING.md); importing stays light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A module may import from its own level and from lower ones. Leaves are 0; assembly comes last.
LEVEL = {
    "lpm": 0,
    "lpm.checks": 0,
    "lpm.sending": 0,
    "lpm.checkpoint": 1,
    "lpm.distributed": 1,
    "lpm.scenes": 1,
    "lpm.cuda": 1,
    "lpm.gaussians": 1,
    "lpm.rasterize": 2,
    "lpm.rasterize_torch": 2,
    "lpm.rasterize_native": 2,
    "lpm.rasterize_gsplat": 2,
    "lpm.losses": 3,
    "lpm.metrics": 3,
    "lpm.views": 3,
    "lpm.sky": 3,
    "lpm.correspond": 3,
    "lpm.patch_warp": 3,
    "lpm.sift": 3,
    "lpm.cones": 3,
    "lpm.plane_sweep": 3,
    "lpm.records": 0,
    "lpm.relocation": 1,
    "lpm.error_maps": 3,
    "lpm.evidence": 3,
    "lpm.error_hull": 3,
    "lpm.flow": 3,
    "lpm.motion_steps": 3,
    "lpm.stillness": 3,
    "lpm.births": 3,
    "lpm.depth_prior": 3,
    "lpm.requests": 1,
    "lpm.zones": 4,
    "lpm.votes": 4,
    "lpm.find_zones": 4,
    "lpm.surroundings": 4,
    "lpm.first_points": 4,
    "lpm.notices": 0,
    "lpm.lock": 1,
    "lpm.memory": 0,
    "lpm.faults": 1,
    "lpm.adam": 1,
    "lpm.proposals": 5,
    "lpm.edits": 5,
    "lpm.optim_state": 5,
    "lpm.strategy": 6,
    "lpm.runs": 7,
    "lpm.export": 8,
    "lpm.viewer": 8,
    "lpm.prepare": 8,
    "lpm.init_from": 9,
    "lpm.cli": 9,
    "lpm.tile": 9,
    "lpm.doctor": 9,
    "lpm.torchvision_hook": 0,
    "lpm.motion": 2,
    "lpm.options": 9,
    "lpm.start": 10,
    "lpm.model": 10,
    "lpm.model4d": 10,
    "lpm.datamanager4d": 10,
    "lpm.datamanager": 10,
    "lpm.pipeline": 11,
    "lpm.watch": 11,
    "lpm.announcement": 11,
    "lpm.host": 11,
    "lpm.resume": 11,
    "lpm.trainer": 11,
    "lpm.config": 12,
    "lpm.bench": 13,
}
# The plugin: only these may import the host.
PLUGIN = (
    "scenes.parser", "scenes.plugin", "options", "model", "datamanager", "model4d", "datamanager4d", "pipeline",
    "watch", "host", "trainer", "config", "bench.run", "start",
)  # fmt: skip
HOST = {f"lpm.{name}" for name in PLUGIN}


def modules():
    for package in ("lpm", "cuda", "scenes", "viewer"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if package == "lpm" else ("lpm", *parts))
            yield name.removesuffix(".__init__"), path


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "lpm":
                yield from (f"lpm.{alias.name}" for alias in node.names)


def level(module: str) -> int:
    """The level of `module`: its own entry, or that of the package it is in."""
    while module not in LEVEL:
        assert "." in module, f"{module} has no level: add it to LEVEL in {__file__}"
        parent = module.rsplit(".", 1)[0]
        assert parent != "lpm", f"{module} has no level: add it to LEVEL in {__file__}"
        module = parent
    return LEVEL[module]


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_run_one_way(name, path):
    for imported in imports(path):
        if imported.startswith("lpm.") and imported != name:
            assert level(imported) <= level(name), f"{name} imports {imported}, which comes after it"
        if imported.split(".")[0] == "nerfstudio":
            assert name in HOST, f"{name} imports nerfstudio; only the plugin modules may"


def test_import_is_light(tmp_path):
    """`import lpm` and its kernels' package: no host, no CUDA, no compiler, no file written, no port."""
    code = """
import sys
import lpm, lpm.cuda, lpm.scenes, lpm.viewer, lpm.export, lpm.prepare.run, lpm.rasterize, lpm.gaussians
import torch
heavy = ('nerfstudio', 'gsplat', 'viser', 'pycolmap')
assert not any(m.split('.')[0] in heavy for m in sys.modules), 'imports the host'
assert not torch.cuda.is_initialized()
"""
    environment = {**os.environ, "LPM_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    assert not (tmp_path / "cache").exists()  # compiling would begin with making it


def test_top_level_names_are_not_taken():
    """`cuda` is NVIDIA's namespace; `scenes` and `viewer` are anybody's."""
    code = "import importlib.util as u, lpm; print([n for n in ('scenes', 'viewer') if u.find_spec(n)])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert found.stdout.strip() == "[]"
