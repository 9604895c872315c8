"""The way of the data is the way of the imports (CONTRIBUTING.md); importing stays light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Rooms in the order of the data. A module may import from its own room and from those that come before it, so no two
# rooms import each other. A name here is a package, or a module that lies beside the packages.
ROOMS = (
    "lpm", "lpm.checks", "lpm.torchvision_hook",  # leaves
    "lpm.sending", "lpm.records", "lpm.files", "lpm.distributed",
    "lpm.scenes",
    "lpm.cuda",
    "lpm.gaussians",
    "lpm.multiview",
    "lpm.plausibility",
    "lpm.render",
    "lpm.runs",
    "lpm.formats",
    "lpm.zones",
    "lpm.strategy",
    "lpm.viewer",
    "lpm.prepare",
    "lpm.train",
    "lpm.editing",
    "lpm.exporting",
    "lpm.plugin",
    "lpm.tile",
    "lpm.bench",
    "lpm.doctor",
)  # fmt: skip
LARGEST_SHARE = 0.15
"""Of all lines, at most so many in one room."""
LONGEST_FILE = 350


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
                yield from (f"lpm.{alias.name}" for alias in node.names if f"lpm.{alias.name}" in ROOMS)


def room(module: str) -> str:
    """The room that `module` is in; a new one must be named in ROOMS."""
    name = ".".join(module.split(".")[:2])
    assert name in ROOMS, f"{module} is in no room: name {name} in ROOMS in {__file__}"
    return name


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_run_one_way(name, path):
    if name == "lpm":  # the public face: it names everything, for type checkers only (see test_face.py)
        return
    own = ROOMS.index(room(name))
    for imported in imports(path):
        if imported.startswith("lpm.") and imported != name:
            assert ROOMS.index(room(imported)) <= own, f"{name} imports {imported}, whose room comes after its own"
        if imported.split(".")[0] == "nerfstudio":
            assert room(name) == "lpm.plugin", f"{name} imports nerfstudio; only lpm.plugin may"


def test_rooms_are_small():
    lines: dict[str, int] = {}
    for name, path in modules():
        count = len(path.read_text().splitlines())
        assert count <= LONGEST_FILE, f"{path}: {count} lines"
        lines[room(name)] = lines.get(room(name), 0) + count
    for path in (ROOT / "cuda").rglob("*"):
        if path.suffix in (".h", ".cpp", ".cu"):
            lines["lpm.cuda"] += len(path.read_text().splitlines())
    largest = max(lines, key=lambda name: lines[name])
    assert lines[largest] <= LARGEST_SHARE * sum(lines.values()), f"{largest}: {lines[largest]}"


def test_import_is_light(tmp_path):
    """`import lpm` and its kernels' package: no nerfstudio, no CUDA, no compiler, no file written, no port."""
    code = """
import sys
import lpm, lpm.cuda, lpm.scenes, lpm.viewer, lpm.formats, lpm.prepare.run, lpm.render.rasterize, lpm.gaussians
import torch
heavy = ('nerfstudio', 'gsplat', 'viser', 'pycolmap')
assert not any(m.split('.')[0] in heavy for m in sys.modules), 'imports nerfstudio'
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
