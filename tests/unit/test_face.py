"""The public face: what `import lpm` has, and that docs/api.md tells all of it, with snippets that run."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lpm
from lpm.scenes.samples.make import make
from lpm.scenes.samples.moving import make_clip

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()


def test_importing_it_imports_nothing():
    # typing is there before anyway where a .pth file of site packages has an import in it.
    code = "import sys, typing; old = set(sys.modules); import lpm; dir(lpm); print(sorted(set(sys.modules) - old))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name == "lpm" for name in ast.literal_eval(done.stdout))


@pytest.mark.parametrize("name", lpm.__all__)
def test_every_name_can_be_had_and_is_told(name):
    assert getattr(lpm, name).__doc__
    assert name in dir(lpm)
    assert f"`{name}`" in PAGE


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "lpm" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        seen |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    assert sorted(seen) == sorted(lpm.__all__) == lpm.__all__
    for name, (module, attribute) in seen.items():
        value = getattr(lpm, name)
        assert value is getattr(sys.modules[module], attribute)


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="module 'lpm' has no attribute 'nothing'"):
        _ = lpm.nothing
    with pytest.raises(ImportError):
        exec("from lpm import nothing")


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch, capsys):
    make("room", tmp_path / "room", views=12, size=(80, 60))
    make_clip("mover", tmp_path / "mover", 4, 10, (80, 60))
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    names: dict = {}
    for snippet in snippets:
        assert len(ast.parse(snippet).body) <= 5
        exec(snippet, names)
    said = capsys.readouterr().out
    assert "nowhere" in said
    assert "splat" in said
    assert all(re.search(rf"\blpm\.{name}\b", "".join(snippets)) for name in lpm.__all__)
