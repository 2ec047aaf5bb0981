"""Where the real public traces lie, and small files in every format."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("LLMSIM_SHARED", REPO.parent / "shared")) / "traces"

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:03.9799601,3180,8
2023-11-16 18:17:05,110,27
"""


@pytest.fixture
def shared() -> Path:
    """Folder of the real traces; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("the real traces are not here")
    return SHARED


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes text (or bytes) to a file of a fresh folder and returns its path."""

    def write_file(content: str | bytes, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file
