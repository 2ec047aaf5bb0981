"""Requests that a replica could never finish, or that come when nobody is left, found before a run begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.engine.pools import unserved
from llmsim.errors import CapacityError

if TYPE_CHECKING:
    from llmsim.core.request import SloClass
    from llmsim.engine.pools import Pools
    from llmsim.engine.replica import Replica

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def limits(replica: Replica) -> tuple[object, ...]:
    """What `refuse_infeasible` goes by: of hundreds of equal replicas one is asked."""
    kv, scheduler = replica.kv, replica.scheduler
    sizes = scheduler.longest_sequence, scheduler.max_model_len, kv.num_blocks, kv.block_size
    return type(scheduler), scheduler.paged, *sizes


def refuse_infeasible(prompts: Ints, outputs: Ints, theirs: Mask, replica: Replica, first_id: int = 0) -> None:
    """Raise CapacityError for a request that could not finish even alone in this replica's cache.

    It must fit with its whole output and what the policy keeps free (Scheduler.longest_sequence). Prompt and output
    tokens, and whether the replica may get it, shapes (requests,), of requests with ids from `first_id` on.
    """
    kv, scheduler = replica.kv, replica.scheduler
    if not scheduler.paged:
        needed, offered = kv.blocks_for(scheduler.max_model_len), kv.num_blocks
        if needed > offered:
            raise CapacityError(
                f"{type(scheduler).__name__} reserves max_model_len={scheduler.max_model_len} tokens a request, "
                f"{needed} KV blocks, but the cache has {offered}; lower engine.max_model_len or raise num_blocks"
            )
        return
    limit = scheduler.longest_sequence
    room = scheduler.max_model_len - prompts
    # What the model's limit does not admit is refused when it arrives (length_limit.py).
    admitted = room >= (1 if scheduler.ends_at_limit else outputs)
    outputs = np.minimum(outputs, room)
    infeasible = theirs & admitted & (prompts + outputs > limit)
    if infeasible.any():
        at = int(np.argmax(infeasible))
        raise CapacityError(
            f"request {first_id + at} grows to {prompts[at] + outputs[at]} tokens "
            f"(prompt {prompts[at]}, output {outputs[at]}) but {kv.num_blocks} KV blocks of "
            f"{kv.block_size} serve {limit} at most; raise engine.num_blocks, or drop or clip long requests "
            "(workload.on_long)"
        )


class LateArrivals:
    """Who arrives when their pool has nobody in service and nobody to come; None: there are no pools."""

    def __init__(self, pools: Pools | None) -> None:
        self._pools = pools
        self._found: dict[str, tuple[int, int, int]] = {}
        """By model: how many, and id and arrival (ns) of the first."""

    def look(self, arrival_ns: Ints, asked: Sequence[SloClass], which: Ints, first_id: int = 0) -> None:
        """Further requests, with ids from `first_id` on: arrivals, and which of the classes `asked` each belongs to,
        shapes (requests,)."""
        if self._pools is None:
            return
        for pool, closes_ns in zip(self._pools.pools, self._pools.closes_ns(), strict=True):
            late = arrival_ns >= closes_ns
            if late.any():
                late &= self._pools.theirs(pool, asked, which)
            if late.any():
                at = int(np.argmax(late))
                count, first, arrival = self._found.get(pool.model, (0, first_id + at, int(arrival_ns[at])))
                self._found[pool.model] = count + int(late.sum()), first, arrival

    def refuse(self) -> None:
        """Raise StalledError if there is one, for the first model of the cluster that has one."""
        for pool in self._pools.pools if self._pools is not None else ():
            if pool.model in self._found:
                raise unserved(pool.model, *self._found[pool.model])
