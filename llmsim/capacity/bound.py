"""The fluid bound of a run's cluster: what no scheduler exceeds with this workload and these calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmsim.fluid import fluid_capacity
from llmsim.kinds import kinds_of
from llmsim.traces.workload import build_workload

if TYPE_CHECKING:
    from llmsim.config import RunSpec


def fluid_bound_rps(spec: RunSpec) -> float:
    """Requests/s of the whole cluster, whatever the policy: limits of schedulers (budgets, places) are left out.

    The lengths are those of the spec's workload and seed. Replicas of different kinds add up, as a router at its best
    could send each what it likes; that makes the bound higher, never wrong.
    """
    kinds = kinds_of(spec)
    drawn = build_workload(spec.workload, spec.seed, min(kind.max_model_len for kind in kinds))
    return sum(
        fluid_capacity(
            kind.calibration,
            drawn.prompt_tokens,
            drawn.output_tokens,
            replicas=kind.count,
            num_blocks=max(1, kind.num_blocks * kind.block_size // kind.calibration.kv.block_size),
            first_token_at_prefill_end=kind.engine.first_token_at_prefill_end,
        ).rps
        for kind in kinds
    )
