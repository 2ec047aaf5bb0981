"""The simulation on a device of another speed: one factor, or one that changes as probes found it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.executors.base import Executor
from llmsim.runs.simulation import simulate
from llmsim.units import FS_PER_NS

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.core.batch import Batch
    from llmsim.core.kvcache import KVCache
    from llmsim.costs.base import CostModel
    from llmsim.runs.replica_groups import ReplicaGroup
    from llmsim.runs.results import Result
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.workload import Workload

Speed = Callable[[int], float]
"""Factor on batch times at a clock of the run (ns)."""

WINDOW = 9
"""Probes whose median is the speed at the middle one: a single one is as noisy as an iteration."""


def constant(factor: float) -> Speed:
    """The same factor at all times."""
    return lambda now: factor


def as_probed(samples: pd.DataFrame) -> Speed:
    """The running median of probes (columns at_ns, ratio), linear between them and constant beyond."""
    at = samples["at_ns"].to_numpy(dtype=np.float64)
    level = samples["ratio"].rolling(WINDOW, center=True, min_periods=1).median().to_numpy(dtype=np.float64)
    return lambda now: float(np.interp(now, at, level))


class PacedExecutor(Executor):
    """Forward passes of `model` times the speed at their start, plus `host_s` an iteration; one iteration a call."""

    def __init__(self, model: CostModel, speed: Speed, host_s: float) -> None:
        self._model = model
        self._speed = speed
        self._host_ns = host_s * 1e9

    def execute(self, batch: Batch, start_ns: int, iterations: int) -> Sequence[int]:
        """As in Executor."""
        forward_ns = self._model.femtoseconds(batch) / FS_PER_NS * self._speed(start_ns)
        return (start_ns + max(1, round(forward_ns + self._host_ns)),)


def simulate_at(spec: RunSpec, speed: Speed, scheduler: Any = None, workload: Workload | None = None) -> Result:
    """The run simulated step by step on a device whose batch times are multiplied by `speed`.

    `scheduler` and `workload` stand in for the spec's, as in `simulate`, which says what is raised.
    """

    def machine(group: ReplicaGroup, _: CostModel) -> tuple[Executor, KVCache]:
        calibration = group.calibration
        executor = PacedExecutor(calibration.batch_time.cost_model(), speed, calibration.host_overhead.seconds)
        return executor, group.kv_cache()

    return simulate(spec.replace(step_by_step=True), scheduler=scheduler, workload=workload, machine=machine)
