"""The fluid bound of a run's cluster: what no scheduler exceeds with this workload and these calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmsim.runs.replica_groups import groups_of, limits_of
from llmsim.theory.fluid import Node, fluid_capacity_of
from llmsim.traces.workload import build_workload

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec


def fluid_bound_rps(spec: RunSpec) -> float:
    """Requests/s of the whole cluster, whatever policy and router: limits of schedulers (budgets, places) are left out.

    The lengths are those of the spec's workload and seed.
    """
    groups = groups_of(spec)
    drawn = build_workload(spec.workload, spec.seed, limits_of(groups))
    nodes = [
        Node(group.calibration, group.count, num_blocks=group.num_blocks, block_size=group.block_size)
        for group in groups
    ]
    # An engine that decodes the first token apart has one decode more: the bound counts the fewer ones.
    skipped = any(group.engine.first_token_at_prefill_end for group in groups)
    return fluid_capacity_of(nodes, drawn.prompt_tokens, drawn.output_tokens, first_token_at_prefill_end=skipped).rps
