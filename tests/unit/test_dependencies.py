"""What the package imports is declared in pyproject.toml, and what is declared is imported."""

import ast
import re
import sys
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
ROOT = Path(__file__).resolve().parents[2]
# Distribution names that differ from what is imported.
IMPORTED_AS = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "usd-core": "pxr",
    "cvvdp": "pycvvdp",
    "scikit-image": "skimage",
}


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name, lines in extras.items() if name not in ("dev", "test") for line in lines
    ]
    names = {re.split(r"[\[<>=!~ ;]", line)[0].lower() for line in lines}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def imported() -> dict[str, Path]:
    found = {}
    for part in ("lpm", "cuda", "scenes", "viewer"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                    names = [node.module]
                for top in (name.split(".")[0] for name in names):
                    if top not in sys.stdlib_module_names and top != "lpm":
                        found[top] = path
    return found


def test_imports_are_declared():
    used, known = imported(), declared()
    assert not {name: str(path) for name, path in used.items() if name not in known}
    assert known == set(used), "declared, and imported nowhere"
