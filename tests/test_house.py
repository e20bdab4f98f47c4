"""The house: what the top level shows, which way imports run, and how large a room may be."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from helpers import ROOT

TOP = {"create_data_lists.py", "datasets.py", "imresize.py", "models.py", "solver.py", "utils.py", "train.ipynb",
       "test.ipynb", "super_resolution.ipynb", "tests", "README.md", "README.zh.md", "requirements.txt",
       "pyproject.toml", "Makefile", "LICENSE", ".gitignore", ".ci", "weights", "teacher", "kit"}
MODULES = sorted(path.relative_to(ROOT).as_posix()
                 for path in [*ROOT.glob("*.py"), *(ROOT / "kit").rglob("*.py"), *(ROOT / "teacher").rglob("*.py")])
LOADS_GENERATORS = "kit/evaluation/generators.py"


def imports_of(name):
    """The modules of the kit that one imports anywhere in it, in functions too."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: {ast.unparse(node)} is relative"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if re.fullmatch(r"kit(\.\w+)+", node.value) else set()  # of import_module
    files = {f"{module.replace('.', '/')}{end}" for module in found for end in (".py", "/__init__.py")}
    return sorted(files & set(MODULES) - {name})


@pytest.fixture(scope="module")
def house():
    """Which module imports which others: name → names."""
    return {name: imports_of(name) for name in MODULES}


def above(house, name):
    """All that imports a module, straight or by way of others."""
    found, new = set(), {name}
    while new:
        new = {other for other, imported in house.items() if new & set(imported)} - found
        found |= new
    return found


def test_the_top_level_is_the_card():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in done.stdout.split("\0") if name} <= TOP


def test_nothing_of_the_kit_is_ignored_by_git():
    done = subprocess.run(["git", "check-ignore", *MODULES], cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    assert not done.stdout


def test_imports_run_one_way(house):
    for name in MODULES:
        assert name not in above(house, name), f"{name} imports itself by way of others"


def test_rooms_do_not_import_each_other_in_a_circle(house):
    """The same for folders, but for what stands above the student's files: those are rooms of their own."""
    alone = {LOADS_GENERATORS, "kit/compare/sweeps.py", "kit/compare/search.py", "kit/__main__.py",
             "kit/tools/run_notebooks.py"}

    def room(name):
        parts = Path(name).parts
        return "/".join(parts[:2]) if parts[0] == "kit" and len(parts) > 2 and name not in alone else name

    rooms = {}
    for name, imported in house.items():
        rooms.setdefault(room(name), set()).update({room(other) for other in imported} - {room(name)})
    for name in rooms:
        assert name not in above(rooms, name), f"{name} imports itself by way of other rooms"


def test_a_students_mistake_reaches_only_what_needs_the_students_files(house):
    assert {name for name in MODULES if "models.py" in house[name]} == {
        "solver.py", LOADS_GENERATORS, "teacher/handout.py", "kit/tools/benchmark.py"}
    needs_solver = {"kit/compare/sweeps.py", "kit/compare/search.py", "kit/lessons/", "kit/handin/smoke_test.py",
                    "kit/tools/"}
    for name in MODULES:
        if "solver.py" in house[name]:
            assert any(name.startswith(place) for place in needs_solver), f"{name} imports solver.py"
    for name in ("kit/handin/command.py", "kit/handin/report.py", "kit/plots/__init__.py", "kit/compare/__init__.py",
                 "kit/training/trainer.py", "kit/runs/__init__.py", "kit/evaluation/__init__.py"):
        assert name not in above(house, "models.py"), f"{name} imports models.py by way of others"


def test_no_file_is_longer_than_400_lines_and_no_class_than_250():
    for name in MODULES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno - node.lineno < 250, f"{name}: {node.name}"


def test_every_file_says_what_belongs_there():
    for name in MODULES:
        assert ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8"))), name


def test_the_map_names_every_room():
    text = (ROOT / "kit" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "kit").rglob("*.py"):
        if path.name not in ("__init__.py", "__main__.py"):
            assert f"`{path.stem}`" in text or f"`{path.name}`" in text, path


def opens_without_encoding(call):
    """Whether a call reads or writes text in the encoding of whatever machine it runs on."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    text = name in ("read_text", "write_text")
    if name == "open" and isinstance(call.func, ast.Name):
        mode = call.args[1] if len(call.args) > 1 else ast.Constant("r")
        text = isinstance(mode, ast.Constant) and "b" not in mode.value
    return text and "encoding" not in {keyword.arg for keyword in call.keywords}


def test_text_is_read_and_written_as_utf_8_everywhere():
    for path in [*map(ROOT.joinpath, MODULES), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Call) and opens_without_encoding(node)), f"{path}, line {node.lineno}"
