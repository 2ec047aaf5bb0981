"""Router: picks the replica of an arriving request, from read-only views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmsim.progress import Progress, iterations_over, progress

if TYPE_CHECKING:
    from llmsim.batch import Work
    from llmsim.costs.base import CostModel
    from llmsim.replica import Replica
    from llmsim.request import Request


FOR_EVER_NS = 1 << 62


class ReplicaView:
    """What a router may know of a replica: what a front end counts, and what an engine reports.

    Every number is that of a step-by-step run at this instant, also in the middle of a macro-step. Nothing of it
    depends on how long outputs will be.
    """

    __slots__ = ("_cost", "_done", "_ends", "_replica", "_until", "index")

    def __init__(self, index: int, replica: Replica, cost: CostModel | None = None) -> None:
        self.index = index
        self._replica = replica
        self._cost = cost
        self._ends: Sequence[int] | None = None
        self._done = 0
        self._until = 0

    @property
    def outstanding(self) -> int:
        """Requests sent there and not answered yet."""
        return self._replica.outstanding

    @property
    def waiting(self) -> int:
        """Of these, requests queued, holding no KV."""
        return self._replica.scheduler.queued

    @property
    def running(self) -> int:
        """Of these, requests that hold KV."""
        return self._replica.scheduler.resident

    @property
    def num_blocks(self) -> int:
        """KV blocks in all."""
        return self._replica.kv.num_blocks

    @property
    def block_size(self) -> int:
        """Tokens of a KV block."""
        return self._replica.kv.block_size

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody holds."""
        return self._progress.free_blocks

    @property
    def prefill_tokens(self) -> int:
        """Tokens that outstanding requests still have to compute before they decode."""
        return self._progress.prefill_tokens

    @property
    def generated_tokens(self) -> int:
        """Output tokens that outstanding requests have emitted so far."""
        return self._progress.generated_tokens

    @property
    def prices_work(self) -> bool:
        """Whether this replica has a batch-time model."""
        return self._cost is not None

    def seconds(self, work: Work) -> float:
        """Seconds that an iteration of `work` takes on this replica, by its own calibration."""
        assert self._cost is not None, "the replica has no batch-time model; test prices_work first"
        return self._cost.seconds(work)

    @property
    def price_class(self) -> int:
        """The same number for replicas that price alike: a router may price once for all of them."""
        return id(self._cost)

    def watched(self, changed: set[int]) -> None:
        """From now on this view's index appears in `changed` whenever what `work_left` says may have changed, but
        for the passing of `steady_until`."""
        self._replica.index, self._replica.changed = self.index, changed

    @property
    def steady_until(self) -> int:
        """Until when (int ns, inclusive) the last answer of `work_left` holds if nothing else changes."""
        return self._until

    def work_left(self, now: int) -> tuple[int, int, int]:
        """`outstanding`, `prefill_tokens` and `generated_tokens` at once; `now` is this instant."""
        replica = self._replica
        flight = replica.flight
        if flight is None:
            self._ends, self._until = None, FOR_EVER_NS
            return replica.outstanding, replica.prefill_left, replica.generated
        batch, ends = flight
        if ends is not self._ends or now > self._until:
            self._ends = ends
            self._done = done = iterations_over(ends, now)
            self._until = ends[done] if done < len(ends) else now  # up to there as many are over
        done = self._done
        prefill = replica.prefill_left - done * sum(batch.chunks) if batch.chunks else replica.prefill_left
        generated = replica.generated if batch.decodes is None else replica.generated + done * batch.decodes.size
        return replica.outstanding, prefill, generated

    @property
    def _progress(self) -> Progress:
        return progress(self._replica, self._replica.env.now)


class Router(ABC):
    """Chooses a replica for each arrival, at the moment it arrives. Parameters are dataclass fields."""

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        """Start a run over `replicas` replicas; `rng` is the run's stream for routing alone."""
        self.replicas = replicas
        self.rng = rng
        self._last_sent = [-1] * replicas
        self._sent = 0

    @abstractmethod
    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """Index of the replica that takes the request."""

    def answered(self, request: Request) -> None:  # noqa: B027  # a hook
        """Hook: the request is answered, so its output length (`generated`) is known from now on."""

    def least(self, loads: Sequence[float], indices: Sequence[int] | None = None) -> int:
        """The index (of all, or of `indices`) with the least load; among equals the one served longest ago."""
        if indices is None:
            best = min(loads)
            equal = [loads.index(best)] if loads.count(best) == 1 else [i for i, v in enumerate(loads) if v == best]
        else:
            best = min(loads[i] for i in indices)
            equal = [i for i in indices if loads[i] == best]
        chosen = min(equal, key=lambda i: (self._last_sent[i], i))
        self._sent += 1
        self._last_sent[chosen] = self._sent
        return chosen
