"""Worker processes, and what they need, are gone within seconds of a parent that was killed, busy or idle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.command import heed_signals

WITHIN_S = 30
"""Well below a second on a machine with nothing else to do."""

POOL = """
import time
from llmsim.sweep.parallel import workers

def wait(busy):
    while busy:
        pass

with workers(2) as pool:
    pool.submit(wait, True)
    pool.submit(wait, False).result()
    print("up", flush=True)
    time.sleep(600)
"""

RUN_MANY = """
from llmsim.spec.run_spec import load_runs
from llmsim.sweep import run_many, workers

(run,) = load_runs(mapping={
    "calibration": "h100/llama-3.1-8b",
    "workload": {"trace": "sharegpt4", "num_requests": 3000, "arrivals": {"kind": "poisson", "rate": 4}},
})
with workers(2) as pool:
    run_many([run.replace(seed=seed) for seed in range(10_000)], executor=pool,
             progress=lambda done, total: print(done, flush=True))
"""

CAPACITY = [
    "-m", "llmsim", "capacity", "--calibration", "h100/llama-3.1-8b", "--prompt-tokens", "1500", "--output-tokens",
    "300", "--keep", "p95_ttft<=1s", "--num-requests", "3000", "--workers", "2", "--progress", "plain",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (["-c", POOL], signal.SIGKILL),
        (["-c", POOL], signal.SIGHUP),
        (["-c", POOL], signal.SIGQUIT),
        (["-c", RUN_MANY], signal.SIGKILL),
        (CAPACITY, signal.SIGKILL),
    ],
    ids=["pool KILL", "pool HUP", "pool QUIT", "run_many", "capacity"],
)
def test_workers_end_with_a_parent_that_is_killed(tmp_path, command, sent):
    running = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        start_new_session=True, preexec_fn=heed_signals,
    )  # fmt: skip
    assert running.stdout is not None
    try:
        assert running.stdout.readline().strip()  # workers are at work
        running.send_signal(sent)
        # Every process of the family holds the other end, loky's tracker of resources too: it ends with the last.
        running.communicate(timeout=WITHIN_S)
        assert running.returncode == -sent
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
