"""Requests that a replica could never finish, found before a run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import CapacityError

if TYPE_CHECKING:
    from llmsim.replica import Replica

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def limits(replica: Replica) -> tuple[object, ...]:
    """What `refuse_hopeless` goes by: of hundreds of equal replicas one is asked."""
    kv, scheduler = replica.kv, replica.scheduler
    sizes = scheduler.longest_sequence, scheduler.max_model_len, kv.num_blocks, kv.block_size
    return type(scheduler), scheduler.paged, *sizes


def refuse_hopeless(prompts: Ints, outputs: Ints, theirs: Mask, replica: Replica, first_id: int = 0) -> None:
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
    # Longer prompts than the model takes are rejected by the scheduler.
    hopeless = theirs & (prompts <= scheduler.max_model_len) & (prompts + outputs > limit)
    if hopeless.any():
        at = int(np.argmax(hopeless))
        raise CapacityError(
            f"request {first_id + at} grows to {prompts[at] + outputs[at]} tokens "
            f"(prompt {prompts[at]}, output {outputs[at]}) but {kv.num_blocks} KV blocks of "
            f"{kv.block_size} serve {limit} at most; raise engine.num_blocks, or drop or clip long requests "
            "(workload.on_long)"
        )
