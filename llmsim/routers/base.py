"""Router: picks the replica of an arriving request, from read-only views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.core.progress import Progress, progress, standing

if TYPE_CHECKING:
    from llmsim.core.batch import Work
    from llmsim.core.request import Request
    from llmsim.costs.base import CostModel
    from llmsim.engine.replica import Replica
    from llmsim.routers.board import LoadBoard


FOR_EVER_NS = 1 << 62

Loads = Sequence[float] | Mapping[int, float] | NDArray[np.float64]


class ReplicaView:
    """What a router may know of a replica: what a front end counts, and what an engine reports.

    Every number is that of a step-by-step run at this instant, also in the middle of a macro-step. Nothing of it
    depends on how long outputs will be.
    """

    __slots__ = ("_cost", "_done", "_ends", "_replica", "board", "index")

    def __init__(self, index: int, replica: Replica, cost: CostModel | None = None) -> None:
        self.index = index
        self._replica = replica
        self._cost = cost
        self._ends: Sequence[int] | None = None
        self._done = 0  # iterations of the run `_ends` that were over at the last look
        self.board: LoadBoard | None = None
        """The board that this view's replica reports to."""

    def at(self, index: int) -> ReplicaView:
        """A view of the same replica for another sequence of views, in which it stands at `index`."""
        return ReplicaView(index, self._replica, self._cost)

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

    def report_to(self, board: LoadBoard, position: int, changed: set[int]) -> None:
        """From now on `position` appears in `changed` whenever what this view says may have changed, but for the
        iterations of a run that end meanwhile (see `work_left`). One board at a time."""
        self.board = board
        self._replica.index, self._replica.changed = position, changed

    def work_left(self, now: int) -> tuple[int, int, int, int]:
        """`outstanding`, `prefill_tokens` and `generated_tokens` at once, and until when (int ns, inclusive) they hold
        if nothing else changes; `now` is this instant."""
        replica = self._replica
        if replica.flight is None:
            return replica.outstanding, replica.prefill_left, replica.generated, FOR_EVER_NS
        batch, ends = replica.flight
        done, until = standing(ends, now, self._done if ends is self._ends else 0)
        self._ends, self._done = ends, done
        prefill, generated = replica.prefill_left, replica.generated
        if batch.chunks:
            prefill -= done * sum(batch.chunks)
        if batch.decodes is not None:
            generated += done * batch.decodes.size
        return replica.outstanding, prefill, generated, until

    @property
    def _progress(self) -> Progress:
        return progress(self._replica, self._replica.env.now)


class Router(ABC):
    """Chooses a replica for each arrival, at the moment it arrives. Parameters are dataclass fields."""

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        """Start a run over `replicas` replicas; `rng` is the run's stream for routing alone."""
        self.replicas = replicas
        self.rng = rng
        self._last_sent = np.full(replicas, -1)
        self._sent = 0

    def resize(self, before: Sequence[int | None]) -> None:
        """Replicas have come or gone: number i was `before[i]` until now, None for a new one.

        From now on `route` gets the views of these, another sequence than before. What was learnt of requests stays;
        a router that keeps something by replica brings it into the new order here.
        """
        self.replicas = len(before)
        self._last_sent = np.array([-1 if old is None else self._last_sent[old] for old in before], dtype=np.int64)

    @abstractmethod
    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """Index, in `replicas`, of the one that takes the request.

        While the replicas stay the same, so does the sequence: a router may keep what it knows of it (LoadBoard).
        """

    def answered(self, request: Request) -> None:  # noqa: B027  # a hook
        """Hook: the request is answered, so its output length (`generated`) is known from now on."""

    def least(self, loads: Loads, indices: Sequence[int] | None = None) -> int:
        """The index (of all, or of `indices`) with the least load; among equals the one served longest ago.

        Fastest with an array, as a LoadBoard has them.
        """
        if indices is None and isinstance(loads, np.ndarray):
            chosen = self._least_of_array(loads)
        else:
            indices = range(len(loads)) if indices is None else indices
            best = min(loads[i] for i in indices)
            equal = [i for i in indices if loads[i] == best]
            chosen = equal[0] if len(equal) == 1 else min(equal, key=lambda i: (self._last_sent[i], i))
        self._sent += 1
        self._last_sent[chosen] = self._sent
        return chosen

    def _least_of_array(self, loads: NDArray[np.float64]) -> int:
        first = int(loads.argmin())
        if first == loads.size - 1 - loads[::-1].argmin():  # searched from both ends: nobody is its equal
            return first
        equal = (loads == loads[first]).nonzero()[0]
        return int(equal[self._last_sent[equal].argmin()])
