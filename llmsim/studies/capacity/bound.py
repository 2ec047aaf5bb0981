"""The fluid bound of a run's cluster: what no scheduler exceeds with this workload and these calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmsim.runs.replica_groups import kinds_of, limits_of
from llmsim.theory.fluid import Node, fluid_capacity_of
from llmsim.traces.workload import build_workload

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec


def fluid_bound_rps(spec: RunSpec) -> float:
    """Requests/s of the whole cluster, whatever policy and router: limits of schedulers (budgets, places) are left out.

    The lengths are those of the spec's workload and seed.
    """
    kinds = kinds_of(spec)
    drawn = build_workload(spec.workload, spec.seed, limits_of(kinds))
    nodes = [
        Node(kind.calibration, kind.count, num_blocks=kind.num_blocks, block_size=kind.block_size) for kind in kinds
    ]
    # An engine that decodes the first token apart has one decode more: the bound counts the fewer ones.
    skipped = any(kind.engine.first_token_at_prefill_end for kind in kinds)
    return fluid_capacity_of(nodes, drawn.prompt_tokens, drawn.output_tokens, first_token_at_prefill_end=skipped).rps
