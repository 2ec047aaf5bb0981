"""llmsim: a trace-driven discrete-event simulator of LLM serving with calibrated GPU cost models.

    from llmsim import simulate
    result = simulate("run.yaml")
    result.summary, result.requests, result.iterations

Names load on first use: importing the package imports none of pandas, torch, plotly, sklearn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from llmsim.core.batch import Batch, Work
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request, SloClass
    from llmsim.costs.base import CostModel
    from llmsim.costs.calibration import load_calibration
    from llmsim.engine.recorder import Observer
    from llmsim.errors import LlmsimError
    from llmsim.executors.base import Executor
    from llmsim.reports.run_report import write_report
    from llmsim.routers.base import Router
    from llmsim.routers.view import ReplicaView
    from llmsim.runs.results import Result
    from llmsim.runs.simulation import compare, simulate
    from llmsim.runs.streaming import simulate_stream
    from llmsim.schedulers.base import Scheduler
    from llmsim.schedulers.continuous import ContinuousBatching
    from llmsim.spec.run_spec import ClusterSpec, EngineSpec, GroupSpec, RunSpec, load_runs
    from llmsim.studies.capacity import find_capacity
    from llmsim.sweep.run import sweep_grid
    from llmsim.theory.fluid import fluid_capacity
    from llmsim.traces.readers import read_trace
    from llmsim.traces.spec import WorkloadSpec
    from llmsim.units import SECOND

_HOME = {
    "Batch": "core.batch",
    "ClusterSpec": "spec.run_spec",
    "ContinuousBatching": "schedulers.continuous",
    "CostModel": "costs.base",
    "EngineSpec": "spec.run_spec",
    "Executor": "executors.base",
    "GroupSpec": "spec.run_spec",
    "KVCache": "core.kvcache",
    "LlmsimError": "errors",
    "Observer": "engine.recorder",
    "ReplicaView": "routers.view",
    "Request": "core.request",
    "Result": "runs.results",
    "Router": "routers.base",
    "RunSpec": "spec.run_spec",
    "SECOND": "units",
    "Scheduler": "schedulers.base",
    "SloClass": "core.request",
    "Work": "core.batch",
    "WorkloadSpec": "traces.spec",
    "compare": "runs.simulation",
    "find_capacity": "studies.capacity",
    "fluid_capacity": "theory.fluid",
    "load_calibration": "costs.calibration",
    "load_runs": "spec.run_spec",
    "read_trace": "traces.readers",
    "simulate": "runs.simulation",
    "simulate_stream": "runs.streaming",
    "sweep_grid": "sweep.run",
    "write_report": "reports.run_report",
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
