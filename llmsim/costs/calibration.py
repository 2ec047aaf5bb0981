"""Finding, loading and saving calibrations.

A name, `device/model`, is looked up in the checkout's `calibrations/` where the package lies in a checkout,
then in the data of an installed wheel; anything that ends in `.json` is a path.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmsim.costs.calibration_file import read_calibration
from llmsim.costs.records import (
    Calibration,
    EngineTerms,
    ErrorFigures,
    ExecutorSetup,
    FitErrors,
    HostOverhead,
    KvMemory,
    LengthLimit,
    Provenance,
)
from llmsim.data import data_folders
from llmsim.errors import CalibrationError, not_modelled, same_name

__all__ = [
    "Calibration",
    "EngineTerms",
    "ErrorFigures",
    "ExecutorSetup",
    "FitErrors",
    "HostOverhead",
    "KvMemory",
    "LengthLimit",
    "Provenance",
    "list_calibrations",
    "load_calibration",
    "read_calibration",
    "save",
]


def load_calibration(name_or_path: str | Path) -> Calibration:
    """The shipped calibration called `device/model`, or the one in the `.json` file of that path."""
    path = Path(name_or_path)
    if path.suffix == ".json":
        return read_calibration(path)
    name = path.as_posix()
    known = _shipped()
    if name not in known:
        raise CalibrationError(
            f"there is no calibration {name!r}.{_nearest(name, known)}"
            " A file of your own is given by a path that ends in .json"
        )
    calibration = read_calibration(known[name])
    if calibration.name != name:
        raise CalibrationError(
            f"{known[name]}: device and model name it {calibration.name!r},"
            f" but it lies where {name!r} belongs"
        )
    return calibration


def list_calibrations() -> list[str]:
    """Names of the shipped calibrations, sorted."""
    return sorted(_shipped())


def save(calibration: Calibration, path: str | Path) -> None:
    """Write the calibration to a `.json` file, making its folder; equal calibrations give equal bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(calibration.to_json(), encoding="utf-8")


def _nearest(name: str, known: Iterable[str]) -> str:
    """What may be meant, never of another card or model because its name is a letter away; else what there is."""
    models: dict[str, list[str]] = {}
    for each in known:
        models.setdefault(each.split("/")[0], []).append(each.split("/", 1)[1])
    if missing := not_modelled(name):
        return missing
    device, _, model = name.partition("/")
    same = same_name(device, models)
    if same is None:
        of_model = [f"{other}/{device}" for other in models if device in models[other]] if not model else []
        if of_model:
            return f" A name is device/model: {', '.join(of_model)}."
        make = "docs/real-servers.md says how to make one."
        return f" There is none of the GPU {device!r}, but of {', '.join(models)}. {make}"
    meant = same_name(model, models[same])
    return f" Did you mean '{same}/{meant}'?" if meant else f" For {same} there are: {', '.join(models[same])}."


def _shipped() -> dict[str, Path]:
    """Path of each shipped calibration by name."""
    found: dict[str, Path] = {}
    for folder in data_folders("calibrations"):
        for path in sorted(folder.glob("*/*.json")):
            found.setdefault(f"{path.parent.name}/{path.stem}", path)
    return found
