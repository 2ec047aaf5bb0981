"""Notes of a summary on what its reader may not think of: steps that never came, idle replicas, unchecked prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmsim.errors import slip_of
from llmsim.units import SECOND, to_ns

if TYPE_CHECKING:
    from llmsim.core.request import SloClass
    from llmsim.costs.records import Calibration
    from llmsim.spec.cluster_spec import ClusterSpec


def late_steps(cluster: ClusterSpec, end_ns: int, horizon_ns: int | None) -> list[str]:
    """A line if steps of schedules come after the run's end or its horizon (ns): they changed nothing."""
    end_ns = end_ns if horizon_ns is None else min(end_ns, horizon_ns)
    steps = [step.at_s for group in cluster.groups for step in group.schedule or ()]
    late = sum(to_ns(at_s) > end_ns for at_s in steps)
    if not late:
        return []
    if end_ns == horizon_ns:
        why = "horizon_s ends it earlier; raise it"
    else:
        why = "the requests end earlier; raise workload.num_requests"
    named, come = "step" if len(steps) == 1 else "steps", "comes" if late == 1 else "come"
    return [
        f"{late} of {len(steps)} schedule {named} {come} after the run ended ({end_ns / SECOND:.4g} s): {why} "
        f"(arrivals must last to the last step, at {max(steps):g} s), or move the steps"
    ]


def idle_models(members: Mapping[str, Sequence[int]], classes: Sequence[SloClass]) -> list[str]:
    """A line for each model that replicas (`members`, by model) serve but no class of the requests asks for.

    With a single model requests need not name theirs, and all go to it.
    """
    if len(members) < 2:
        return []
    asked = list(dict.fromkeys(c.model for c in classes if c.model is not None))
    lines = []
    for model, replicas in members.items():
        if model not in asked:
            meant = slip_of(model, asked)
            idle = f"{len(replicas)} replica{'s' if len(replicas) > 1 else ''} idle"
            lines.append(f"no request asks for {model} ({idle}).{meant} The requests ask for {', '.join(asked)}")
    return lines


def unproven(calibrations: Sequence[Calibration]) -> list[str]:
    """A line if calibrations of an engine were never held against that engine."""
    names = dict.fromkeys(c.name for c in calibrations if c.engine is not None and c.engine.checked is None)
    if not names:
        return []
    return [
        f"{', '.join(names)}: put together from times of single kernels, never held against a server; where two kinds "
        "of kernel measurements exist they differ by up to 15 % (docs/real-servers.md tells how to check yours)"
    ]
