"""An installed wheel works away from the checkout, with the data inside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_simulates_outside_the_checkout(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("llmsim-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    work = tmp_path / "elsewhere"
    work.mkdir()
    run = [
        *(sys.executable, "-m", "llmsim", "simulate", "--trace", "sharegpt4", "--rate", "1"),
        *("--num-requests", "20", "--calibration", "rtx-6000-ada/mistral-7b", "--scheduler", "sarathi", "--json"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    ran = subprocess.run(run, cwd=work, env=environment, capture_output=True, text=True, check=True)
    (summary,) = json.loads(ran.stdout)
    assert summary["completed"] == 20
    version = [sys.executable, "-m", "llmsim", "--version"]
    said = subprocess.run(version, cwd=work, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == wheel.name.split("-")[1]
    assert (site / "llmsim" / "py.typed").exists()
    code = (
        "import llmsim, llmsim.data as d; from llmsim.costs.models import load_model; "
        "from llmsim.calibrate.profiling.plan import load_plan; load_model('tiny'), load_plan('tiny-cpu'); "
        "print(llmsim.__file__, *d.data_folders('traces'), *d.data_folders('profiling/models'))"
    )
    where = subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(site)) for path in where.stdout.split())
