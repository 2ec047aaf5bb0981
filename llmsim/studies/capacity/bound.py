"""The fluid bound of a run's cluster: what no scheduler exceeds with this workload and these calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmsim.core.prefix.infinite import InfiniteCache
from llmsim.runs.replica_groups import groups_of, limits_of
from llmsim.theory.fluid import Node, fluid_capacity_of
from llmsim.traces.workload import build_workload

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec


def fluid_bound_rps(spec: RunSpec) -> float:
    """Requests/s of the whole cluster, whatever policy and router: limits of schedulers (budgets, places) are left out.

    The lengths are those of the spec's workload and seed; with prefix caching without what an infinite cache would
    find of the prompts.
    """
    groups = groups_of(spec)
    limits = limits_of(groups)
    drawn = build_workload(spec.workload, spec.seed, limits)
    # An engine may end an answer at its limit (vLLM): the bound counts no token that a replica may not emit.
    outputs = np.minimum(drawn.output_tokens, np.maximum(min(limits.values()) - drawn.prompt_tokens, 1))
    prompts = drawn.prompt_tokens
    if drawn.contents is not None and any(group.engine.enable_prefix_caching for group in groups):
        cache = InfiniteCache(1)
        found = [cache.add(*one) for one in zip(drawn.contents, prompts.tolist(), strict=True)]
        prompts = prompts - np.array(found, dtype=np.int64)
    nodes = [
        Node(group.calibration, group.count, num_blocks=group.num_blocks, block_size=group.block_size)
        for group in groups
    ]
    # An engine that decodes the first token apart has one decode more: the bound counts the fewer ones.
    skipped = any(group.engine.first_token_at_prefill_end for group in groups)
    return fluid_capacity_of(nodes, prompts, outputs, first_token_at_prefill_end=skipped).rps
