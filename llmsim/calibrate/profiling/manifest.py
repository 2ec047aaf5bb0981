"""manifest.json of a campaign: what was measured, on what, with which versions, and what was found on the way.

`identity` is what must be the same for measurements to lie in one folder: model, device, backend, dtype, page size,
threads, who multiplies matrices, versions. Measurements of different kinds are never mixed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    from llmsim.costs.models import ModelConfig
    from llmsim.executors.device import DeviceSpec

SCHEMA_VERSION = 1
NAME = "manifest.json"


def identity(config: ModelConfig, spec: DeviceSpec, linear: str, versions: dict[str, str]) -> dict[str, Any]:
    """What measurements in one folder have in common."""
    # Every kernel is launched by itself: no CUDA graphs yet, whose times would be steps in the batch size.
    executor = asdict(spec) | {"linear": linear, "cuda_graphs": False}
    return {"model": asdict(config), "executor": executor, "versions": versions}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, None if it has none; CalibrationError if it cannot be read."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CalibrationError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(held, dict) or held.get("schema_version") != SCHEMA_VERSION:
        raise CalibrationError(f"{path}: is no manifest of schema version {SCHEMA_VERSION}")
    return held


def write_manifest(folder: Path, held: dict[str, Any]) -> None:
    """Write the manifest, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{NAME}"
    draft.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **held}, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / NAME)


def check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise CalibrationError, naming the first difference, if `new` measurements may not join the `old` ones."""
    for part in new:
        was, now = old.get(part, {}), new[part]
        for key in sorted({*was, *now}):
            if was.get(key) != now.get(key):
                raise CalibrationError(
                    f"{folder}: holds measurements with {part}.{key} = {was.get(key)!r}, but this campaign has "
                    f"{now.get(key)!r}; give another --out, or --restart to throw the old ones away"
                )
