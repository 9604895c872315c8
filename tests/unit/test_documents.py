"""Documents name what is there: files, modules, rooms, links."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("lpm", "scenes", "viewer", "cuda", "tests", "benchmarks", "tools", "docs")
MADE = {"benchmarks/results/gpu"}
"""Folders that a command makes."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_names_exist(page):
    text = page.read_text()
    for path in re.findall(rf"(?<![\w.-])(?:\.\./)?((?:{'|'.join(FOLDERS)})/[\w./*-]*[\w*])", text):
        known = "NAME" in path or path in MADE
        assert known or any(ROOT.glob(path)), f"{page.name}: {path} does not exist"
    for name in set(re.findall(r"(?<![\w/.])lpm(?:\.[A-Za-z_]\w*)+", text)):
        if name.split(".")[-1] not in ("py", "md"):
            assert exists(name), f"{page.name}: {name} does not exist"
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (page.parent / link).exists(), f"{page.name}: the link {link} leads nowhere"


def exists(name: str) -> bool:
    """Whether `name` is a module, or what is in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[count:]:
                value = getattr(value, part)
        except AttributeError:
            return False
        return True
    return False


def rooms() -> set[str]:
    """Folders with modules."""
    found = {path.parent for top in ("lpm", "scenes", "viewer", "cuda") for path in (ROOT / top).rglob("*.py")}
    return {str(path.relative_to(ROOT)) for path in found} - {"lpm"}


def test_the_picture_of_the_house_is_the_house():
    house = (ROOT / "CONTRIBUTING.md").read_text().split("## The house")[1].split("## The way of the data")[0]
    named = set(re.findall(r"^((?:lpm|scenes|viewer|cuda)[\w/]*)/ ", house, re.M))
    assert named == rooms()
    tests = {f"{path.name}/" for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    (line,) = re.findall(r"^tests/ (.*)$", house, re.M)
    assert set(line.split()) == tests
    for module in (ROOT / "lpm").glob("*.py"):
        assert f"`lpm/{module.name}`" in house


def test_packages_that_are_installed_are_the_rooms():
    (block,) = re.findall(r"^packages = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    dotted = {name if name.startswith("lpm/") else f"lpm/{name}" for name in rooms()} | {"lpm"}
    assert {name.replace("/", ".") for name in dotted} == set(re.findall(r'"(.+?)"', block))
