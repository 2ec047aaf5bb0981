"""Many runs: `run_many` and `sweep` from Python (parallel); grids from a file, resumed where they stopped (run).

values, grid (the file) · inputs, points (runs known by content) · worker, executors, drive (running) · store (the
folder) · tables, text, files (what is found) · estimate
"""

from __future__ import annotations

from llmsim.sweep.parallel import Case, Progress, run_many, summary_of, sweep, workers
from llmsim.sweep.run import Sweep, merge_sweeps, sweep_grid

__all__ = [
    "Case",
    "Progress",
    "Sweep",
    "merge_sweeps",
    "run_many",
    "summary_of",
    "sweep",
    "sweep_grid",
    "workers",
]
