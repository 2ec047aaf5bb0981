"""Who may import whom: downwards only; and what the first import costs nothing of."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llmsim

PACKAGE = Path(llmsim.__file__).parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "_data" not in p.parts)
LEVELS = [
    {"units", "errors", "data", "intervals", "folders", "fleet_text", "parquet"},
    {"request", "strict", "models"},
    {"batch", "decodes", "kvcache"},
    {"schedulers", "costs"},
    {"executors", "traces"},
    {"recorder", "clock"},
    {"replica", "progress"},
    {"async_replica", "hopeless"},
    {"routers", "cluster_spec"},
    {"elastic", "fleet_notes"},
    {"pools"},
    {"cluster", "metrics", "config", "profiling"},
    {"registry", "tabulate", "tables", "provenance", "theory", "programme", "fluid", "fluid_tables", "importers"},
    {"calibration_list"},
    {"calibration_text"},
    {"results", "testing"},
    {"kinds", "plots", "exports"},
    {"prepared"},
    {"simulation", "streaming"},
    {"sweep", "report", "fit_report", "validation"},
    {"validation_report"},
    {"capacity", "experiment", "client", "sweeps"},
    {"peers"},
    {"bench", "bench_scale", "cli"},
]
"""Parts of the package from the bottom up: a part imports, when it runs, only from its own level or below."""

ONLY_IN = {
    "simpy": {"clock.py", "replica.py", "cluster.py", "bench.py"},
    "typer": {"cli"},
    "rich": {"cli", "experiment.py"},
    "sklearn": {"profiling"},
    "plotly": {"plots"},
    "torch": {"executors", "profiling"},
    "flashinfer": {"executors"},
    "aiohttp": {"client"},
    "distributed": {"sweeps"},
    "duckdb": {"traces"},
}
SCHEDULERS_MAY = {"batch", "decodes", "errors", "kvcache", "request", "schedulers", "units"}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def runtime_imports(path: Path) -> list[str]:
    """Modules imported when the file runs: those under `if TYPE_CHECKING` are for the type checker alone."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in runtime_imports(path) if name.startswith("llmsim.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_level_or_below(path):
    level = {name: at for at, names in enumerate(LEVELS) for name in names}
    if part(path) in ("__init__", "__main__"):
        return
    assert part(path) in level, f"{part(path)} has no level yet: add it to LEVELS"
    above = {name for name in ours(path) if level[name] > level[part(path)]}
    assert not above, f"{path.name} imports upwards: {sorted(above)}"


def test_schedulers_know_nothing_of_clock_executor_or_simulation():
    for path in (PACKAGE / "schedulers").glob("*.py"):
        assert ours(path) <= SCHEDULERS_MAY, path.name


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library):
    users = {p for p in FILES if any(n.split(".")[0] == library for n in runtime_imports(p))}
    places = {p.name if p.parent == PACKAGE else p.relative_to(PACKAGE).parts[0] for p in users}
    assert places <= ONLY_IN[library]


def test_importing_the_package_or_the_command_line_loads_nothing_heavy():
    code = (
        "import sys, llmsim, llmsim.cli; "
        "heavy = ('duckdb', 'numpy', 'pandas', 'polars', 'pyarrow', 'torch', 'plotly', 'sklearn', 'simpy'); "
        "print([m for m in heavy if m in sys.modules])"
    )
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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_and_stays_small(path):
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert text.count("\n") <= 270, f"{path} has {text.count(chr(10))} lines: split it"
