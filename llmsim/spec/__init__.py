"""A run as data: strict YAML both ways (run_spec, cluster_spec, strict), and names of policies (registry)."""

from __future__ import annotations

from llmsim.spec.run_spec import ClusterSpec, EngineSpec, GroupSpec, RunSpec, StepSpec, load_runs

__all__ = [
    "ClusterSpec",
    "EngineSpec",
    "GroupSpec",
    "RunSpec",
    "StepSpec",
    "load_runs",
]
