"""Who may import whom: downwards only, no circles; and what the first import costs nothing of.

Every import counts: those inside functions, and those for the type checker alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import llmsim

PACKAGE = Path(llmsim.__file__).parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "_data" not in p.parts)
LEVELS = [
    {"units", "errors", "data"},
    {"core"},
    {"schedulers", "costs", "metrics", "traces"},
    {"routers", "executors", "spec", "theory"},
    {"engine"},
    {"runs", "calibrate", "testing"},
    {"sweep", "exports", "validation", "benchmarks"},
    {"reports", "client"},
    {"studies"},
    {"cli"},
]
"""The rooms from the ground up: a room imports only from levels below its own. docs/architecture.md describes them."""

ONLY_IN = {
    "simpy": {"core/clock.py", "engine", "benchmarks"},
    "typer": {"cli"},
    "rich": {"cli", "studies/experiment.py"},
    "sklearn": {"calibrate"},
    "plotly": {"reports"},
    "torch": {"executors", "calibrate/profiling"},
    "flashinfer": {"executors"},
    "aiohttp": {"client"},
    "distributed": {"sweep"},
    "duckdb": {"traces"},
}
POLICIES_MAY = {
    "schedulers": {"core", "errors", "schedulers", "units"},
    "routers": {"core", "costs", "errors", "routers", "units"},
}
NOT_AT_START = ("numpy", "pandas", "torch", "plotly", "sklearn", "simpy", "pyarrow", "scipy", "duckdb")


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


@cache
def imports(path: Path, *, when_run: bool = False) -> frozenset[str]:
    """Modules that a file imports anywhere; with `when_run` without those for the type checker alone."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if when_run and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in MODULES else node.module for name in whole)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return frozenset(found)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name in MODULES and name != module_of(path)}


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_files_import_only_from_levels_below_their_room():
    level = {name: at for at, names in enumerate(LEVELS) for name in names}
    upwards = []
    for path in FILES:
        mine = room(module_of(path))
        if path.parent == PACKAGE and path.stem in ("__init__", "__main__"):
            continue
        assert mine in level, f"{mine} has no level yet: add it to LEVELS and to docs/architecture.md"
        others = {name for name in ours(path) if room(name) != mine}
        upwards += [f"{path}: {name}" for name in others if level.get(room(name), len(LEVELS)) >= level[mine]]
    assert not upwards, "imports from the own level or above:\n" + "\n".join(upwards)


def test_there_is_no_circle_between_files():
    assert not circle({name: ours(path) for name, path in MODULES.items()})


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_the_house_has_at_most_ten_levels_and_no_loose_files():
    assert len(LEVELS) <= 10
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "__main__", "units", "errors", "data"}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms | loose == set.union(*LEVELS) | {"__init__", "__main__"}


@pytest.mark.parametrize("policies", POLICIES_MAY)
def test_policies_know_the_nouns_alone(policies):
    for path in (PACKAGE / policies).glob("*.py"):
        assert {room(name) for name in ours(path)} <= POLICIES_MAY[policies], path.name


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library):
    for path in FILES:
        if any(name.split(".")[0] == library for name in imports(path, when_run=True)):
            where = path.relative_to(PACKAGE).as_posix()
            assert any(where == place or where.startswith(f"{place}/") for place in ONLY_IN[library]), where


def test_importing_the_package_or_the_command_line_loads_nothing_heavy():
    code = f"import sys, llmsim, llmsim.cli; print([m for m in {NOT_AT_START} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_public_name_resolves_and_stands_in_order():
    def rank(name: str) -> tuple[bool, bool, str]:
        return not name.isupper(), name[0].islower(), name

    assert list(llmsim.__all__) == sorted(llmsim.__all__, key=rank)
    for name in llmsim.__all__:
        assert getattr(llmsim, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        llmsim.nonsense  # noqa: B018


def test_every_file_says_what_it_is_and_stays_small():
    texts = {path: path.read_text() for path in FILES}
    assert not [path for path, text in texts.items() if not ast.get_docstring(ast.parse(text))]
    assert not [path for path, text in texts.items() if text.count("\n") > 270]


def test_show_the_house(capsys):
    graph = {name: ours(path) for name, path in MODULES.items()}
    with capsys.disabled():
        print(f"\n{len(FILES)} files, {sum(len(names) for names in LEVELS)} rooms, {len(LEVELS)} levels")
        for at, names in reversed(list(enumerate(LEVELS, 1))):
            print(f"{at:3}  {', '.join(sorted(names))}")
        print(f"circles between files: {circle(graph) or 'none'}")
