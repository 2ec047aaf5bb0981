"""Fixtures: the folder of shared real data, where there is one."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real traces, measurements and decision traces; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("LLMSIM_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set LLMSIM_SHARED)")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs torch or a GPU where there is none."""
    has_torch = find_spec("torch") is not None
    for item in items:
        if ("live" in item.keywords or "gpu" in item.keywords) and not has_torch:
            item.add_marker(pytest.mark.skip(reason="torch is not installed (make test-live)"))
