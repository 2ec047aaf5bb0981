"""Workloads: trace files in, statistical twins, synthesis, export.

The names below load on first use, so that importing a specification does not import pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Trace": "schema",
    "read_trace": "readers",
    "ArrivalsSpec": "arrivals",
    "DistributionSpec": "distributions",
    "LengthsSpec": "lengths",
    "ClassSpec": "spec",
    "WorkloadSpec": "spec",
    "Workload": "workload",
    "WorkloadStream": "stream",
    "build_workload": "workload",
    "stream_workload": "stream",
    "Twin": "twins",
    "load_twin": "twins",
    "make_twin": "twins",
    "trace_stats": "stats",
    "write_trace": "export",
}

__all__ = [
    "ArrivalsSpec",
    "ClassSpec",
    "DistributionSpec",
    "LengthsSpec",
    "Trace",
    "Twin",
    "Workload",
    "WorkloadSpec",
    "WorkloadStream",
    "build_workload",
    "load_twin",
    "make_twin",
    "read_trace",
    "stream_workload",
    "trace_stats",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    """Public name `name` from its module; AttributeError if there is none."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
