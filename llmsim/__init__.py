"""llmsim: a trace-driven discrete-event simulator of LLM serving with calibrated GPU cost models.

    from llmsim import load_runs, simulate
    result = simulate(load_runs("run.yaml")[0])
    result.summary, result.requests, result.iterations

Names load on first use: importing the package imports none of pandas, torch, plotly, sklearn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmsim.batch import Batch, Work
    from llmsim.capacity import find_capacity
    from llmsim.config import ClusterSpec, EngineSpec, GroupSpec, RunSpec, load_runs
    from llmsim.costs.base import CostModel
    from llmsim.costs.calibration import load_calibration
    from llmsim.errors import LlmsimError
    from llmsim.executors.base import Executor
    from llmsim.fluid import fluid_capacity
    from llmsim.kvcache import KVCache
    from llmsim.recorder import Observer
    from llmsim.report import write_report
    from llmsim.request import Request, SloClass
    from llmsim.results import Result
    from llmsim.routers.base import ReplicaView, Router
    from llmsim.schedulers.base import Scheduler
    from llmsim.schedulers.continuous import ContinuousBatching
    from llmsim.simulation import compare, simulate
    from llmsim.streaming import simulate_stream
    from llmsim.sweeps.run import sweep_grid
    from llmsim.traces.readers import read_trace
    from llmsim.traces.spec import WorkloadSpec
    from llmsim.units import SECOND

_HOME = {
    "Batch": "batch",
    "ClusterSpec": "config",
    "ContinuousBatching": "schedulers.continuous",
    "CostModel": "costs.base",
    "EngineSpec": "config",
    "Executor": "executors.base",
    "GroupSpec": "config",
    "KVCache": "kvcache",
    "LlmsimError": "errors",
    "Observer": "recorder",
    "ReplicaView": "routers.base",
    "Request": "request",
    "Result": "results",
    "Router": "routers.base",
    "RunSpec": "config",
    "SECOND": "units",
    "Scheduler": "schedulers.base",
    "SloClass": "request",
    "Work": "batch",
    "WorkloadSpec": "traces.spec",
    "compare": "simulation",
    "find_capacity": "capacity",
    "fluid_capacity": "fluid",
    "load_calibration": "costs.calibration",
    "load_runs": "config",
    "read_trace": "traces.readers",
    "simulate": "simulation",
    "simulate_stream": "streaming",
    "sweep_grid": "sweeps.run",
    "write_report": "report",
}

__all__ = [
    "SECOND",
    "Batch",
    "ClusterSpec",
    "ContinuousBatching",
    "CostModel",
    "EngineSpec",
    "Executor",
    "GroupSpec",
    "KVCache",
    "LlmsimError",
    "Observer",
    "ReplicaView",
    "Request",
    "Result",
    "Router",
    "RunSpec",
    "Scheduler",
    "SloClass",
    "Work",
    "WorkloadSpec",
    "compare",
    "find_capacity",
    "fluid_capacity",
    "load_calibration",
    "load_runs",
    "read_trace",
    "simulate",
    "simulate_stream",
    "sweep_grid",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'llmsim' has no attribute {name!r}")
    return getattr(import_module(f"llmsim.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
