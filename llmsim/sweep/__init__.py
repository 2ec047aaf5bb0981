"""Sweeps: a grid over a run, on any executor, resumed where it stopped, as one table and its means over seeds."""

from llmsim.sweep.run import Sweep, merge_sweeps, sweep_grid

__all__ = ["Sweep", "merge_sweeps", "sweep_grid"]
