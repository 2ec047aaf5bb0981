"""What runs a batch: a cost model (simulated), a recorded run (replay), or torch on a device (live).

base.py says what an executor is. Files that need torch (runner, decoder, attention/) are loaded on first use.
"""

from __future__ import annotations

from llmsim.executors.base import Executor
from llmsim.executors.replay import ReplayExecutor
from llmsim.executors.simulated import SimulatedExecutor

__all__ = [
    "Executor",
    "ReplayExecutor",
    "SimulatedExecutor",
]
