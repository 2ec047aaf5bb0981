"""Another simulator on the same requests: NVIDIA's DynoSim (Rust), for `make bench` to stand beside.

It lives in an environment of its own (runs/peers/dynosim), made from the package index on first use. Where it cannot be
had, `PeerError` says why.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llmsim.errors import LlmsimError
from llmsim.traces.export import to_mooncake, workload_table

if TYPE_CHECKING:
    from llmsim.traces.workload import Workload

VERSION = "1.4.2"
NAME = f"DynoSim {VERSION}"
HOME = Path("runs/peers/dynosim")
INSTALL_S, RUN_S = 600, 120


class PeerError(LlmsimError):
    """The other simulator cannot be installed, or did not do what it was asked."""


def dynosim() -> Path:
    """The Python that has DynoSim, installed if need be. Raises PeerError."""
    python = HOME / "bin" / "python"
    if (HOME / ".made").exists():
        return python
    _run([sys.executable, "-m", "venv", str(HOME)], INSTALL_S)
    pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    # Its own requirements bring servers and CUDA; replaying a trace needs none of them.
    _run([*pip, "--no-deps", f"ai-dynamo=={VERSION}", f"ai-dynamo-runtime=={VERSION}"], INSTALL_S)
    _run([*pip, "msgspec", "transformers"], INSTALL_S)
    _run([str(python), "-m", "dynamo.replay", "--help"], RUN_S)
    (HOME / ".made").touch()
    return python


def replay(workload: Workload, folder: Path) -> tuple[float, float]:
    """DynoSim on these requests, one worker, its defaults: (its own wall seconds, requests served a simulated second).

    Raises PeerError.
    """
    trace, report = folder / "trace.jsonl", folder / "report.json"
    trace.write_bytes(to_mooncake(workload_table(workload)))
    _run(
        [str(dynosim()), "-m", "dynamo.replay", str(trace), "--trace-format", "mooncake", "--report-json", str(report)],
        RUN_S,
    )
    held = json.loads(report.read_text())
    if held["completed_requests"] != len(workload):
        raise PeerError(f"{NAME} completed {held['completed_requests']} of {len(workload)} requests")
    return held["wall_time_ms"] / 1e3, held["request_throughput_rps"]


def _run(command: list[str], limit_s: float) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=limit_s, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{NAME}: {' '.join(command[:4])} ... failed: {error}") from error
    if done.returncode:
        last = [line for line in done.stderr.strip().splitlines() if "WARNING" not in line][-1:]
        raise PeerError(f"{NAME}: {' '.join(command[1:4])} ... ended with {done.returncode}: {' '.join(last)}")
