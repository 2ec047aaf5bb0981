"""Where shipped data lies: the checkout's own folders, or the copies inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def data_dir(kind: str) -> Path:
    """Folder of `kind` ("calibrations", "traces" or "experiments"): beside the package in a checkout, else in it."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return PACKAGE / "_data" / kind
