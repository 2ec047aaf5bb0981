"""Where shipped data lies: the checkout's own folders, or the copies inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def data_folders(kind: str) -> list[Path]:
    """Folders that may hold `kind` ("calibrations" or "traces"); the first that has a file wins.

    Without a pyproject.toml, such a folder beside an installed package is somebody else's.
    """
    checkout = [PACKAGE.parent / kind] if (PACKAGE.parent / "pyproject.toml").is_file() else []
    return [folder for folder in (*checkout, PACKAGE / "_data" / kind) if folder.is_dir()]
