"""Which importers there are: a name for `--from`, and the function that makes a calibration of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmsim.calibrate.importers.assemble import import_kernels, import_layer_profile
from llmsim.calibrate.importers.options import ImportOptions
from llmsim.calibrate.importers.vllm_forward import import_vllm_forward
from llmsim.costs.records import Calibration
from llmsim.errors import ConfigError, did_you_mean

Importer = Callable[[Path, ImportOptions], Calibration]

IMPORTERS: dict[str, Importer] = {
    "vllm-forward": import_vllm_forward,
    "layer-profile": import_layer_profile,
    "kernels": import_kernels,
}
"""By the name that `--from` takes."""


def importer_named(name: str) -> Importer:
    """The importer of that name; ConfigError with the nearest known one."""
    if name not in IMPORTERS:
        raise ConfigError(f"--from {name!r} is no kind of file that can be imported.{did_you_mean(name, IMPORTERS)}")
    return IMPORTERS[name]
