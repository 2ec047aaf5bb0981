"""Where a result comes from: its spec, the files it read, the code and library versions, how long it took."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from llmsim.data import PACKAGE
from llmsim.spec.run_spec import dump_run

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.stream import WorkloadStream
    from llmsim.traces.workload import Workload

LIBRARIES = ("llmsim", "ddsketch", "numpy", "pandas", "pyarrow", "simpy")


def manifest(
    spec: RunSpec, workload: Workload | WorkloadStream, calibrations: Sequence[Calibration], timing: Mapping[str, float]
) -> dict[str, Any]:
    """What meta.json holds: everything about the run that is no result, wall times included."""
    used = [
        {
            "name": calibration.name,
            "sha256": hashlib.sha256(calibration.to_json().encode()).hexdigest(),
            "source": calibration.provenance.source,
        }
        for calibration in {calibration.name: calibration for calibration in calibrations}.values()
    ]
    return {
        "config": dump_run(spec),
        "seed": spec.seed,
        "workload": dict(workload.description),
        "calibration": used[0],
        **({"calibrations": used} if len(used) > 1 else {}),
        "git": git_state(),
        "versions": versions(),
        "python": platform.python_version(),
        "wall_time": dict(timing),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that decide a result."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout the package lies in; None outside a checkout, or without git."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        run = {"cwd": PACKAGE.parent, "capture_output": True, "text": True, "timeout": 5, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run)  # type: ignore[call-overload]
        status = subprocess.run(["git", "status", "--porcelain"], **run)  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
