"""How far a replica is at an instant, also in the middle of a macro-step: what routers may see of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llmsim.core.ramp import Ramp

if TYPE_CHECKING:
    from llmsim.core.batch import Batch
    from llmsim.core.clock import Clock
    from llmsim.core.kvcache import KVCache


class Queues(Protocol):
    """How many requests a scheduler has: queued without KV, and resident with it."""

    @property
    def queued(self) -> int: ...
    @property
    def resident(self) -> int: ...


class ReplicaState(Protocol):
    """What is looked at of a replica (engine.replica.Replica, where each is described), at its last commit."""

    index: int
    changed: set[int]

    @property
    def env(self) -> Clock: ...
    @property
    def kv(self) -> KVCache: ...
    @property
    def scheduler(self) -> Queues: ...
    @property
    def outstanding(self) -> int: ...
    @property
    def prefill_left(self) -> int: ...
    @property
    def generated(self) -> int: ...
    @property
    def flight(self) -> tuple[Batch, Sequence[int]] | None: ...


class Progress(NamedTuple):
    """Counters of a replica.

    free_blocks       KV blocks that nobody holds
    prefill_tokens    tokens that its outstanding requests still have to compute before they decode
    generated_tokens  output tokens that its outstanding requests have emitted so far
    """

    free_blocks: int
    prefill_tokens: int
    generated_tokens: int


def progress(replica: ReplicaState, now: int) -> Progress:
    """The counters as a step-by-step run would show them to somebody who looks at `now` (int ns).

    A run of several iterations is committed as a whole when it ends; until then what its iterations have done
    is added here. An iteration that ends at this very instant is not over: ends come after all else (LATE).
    """
    blocks, prefill, generated = replica.kv.free_blocks, replica.prefill_left, replica.generated
    if replica.flight is not None:
        batch, ends = replica.flight
        done = iterations_over(ends, now)
        prefill -= done * sum(batch.chunks)
        if batch.decodes is not None:
            generated += done * batch.decodes.size
            blocks -= batch.decodes.growth(1, done)  # taken when the next iteration began
    return Progress(blocks, prefill, generated)


def standing(ends: Sequence[int], now: int, done: int = 0) -> tuple[int, int]:
    """Iterations of a run that ended before `now` (int ns), and when the next one ends; `now` if none is left.

    At least `done` are known to have ended.
    """
    if isinstance(ends, Ramp):
        return ends.standing(now, done)
    done = bisect_left(ends, now)
    return done, ends[done] if done < len(ends) else now


def iterations_over(ends: Sequence[int], now: int) -> int:
    """Iterations of a run that ended before `now` (int ns)."""
    return ends.count_before(now) if isinstance(ends, Ramp) else bisect_left(ends, now)
