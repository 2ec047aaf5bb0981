"""What a router may know of replicas: one by one (ReplicaView), or all as arrays (LoadBoard)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmsim.core.progress import Progress, ReplicaState, iterations_over, progress, standing

if TYPE_CHECKING:
    from llmsim.core.batch import Work
    from llmsim.core.request import Request
    from llmsim.costs.base import CostModel

FOR_EVER_NS = 1 << 62


class ReplicaView:
    """What a router may know of a replica: what a front end counts, and what an engine reports.

    Every number is that of a step-by-step run at this instant, also in the middle of a macro-step. Nothing of it
    depends on how long outputs will be.
    """

    __slots__ = ("_cost", "_done", "_ends", "_replica", "board", "index")

    def __init__(self, index: int, replica: ReplicaState, cost: CostModel | None = None) -> None:
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

    def cached_tokens(self, request: Request) -> int:
        """Tokens of a new request that this replica's prefix cache holds; 0 without prefix caching."""
        replica = self._replica
        if replica.flight is None:
            return replica.kv.peek(request)
        batch, ends = replica.flight
        done = iterations_over(ends, replica.env.now)
        for prompt, chunk in zip(batch.prefills, batch.chunks, strict=True):
            if prompt.content is not None:
                replica.kv.fill(prompt, prompt.computed + done * chunk)
        return replica.kv.peek(request, done, batch.decodes.growth(1, done) if batch.decodes is not None else 0)

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


class LoadBoard:
    """What the views of these replicas say, by position in their sequence, as it was at the last `refresh`.

    outstanding  requests sent there and not answered yet
    prefill      tokens that they have still to compute before they decode
    generated    output tokens that they have emitted so far
    free_tokens  tokens of KV that nobody holds; only once `watch_kv` was called

    All are float64 of shape (replicas,), to be read only: counts, so exact, in the type that loads are computed in.
    A replica is asked again if it committed, took a request or began a run since, or if an iteration of its run has
    ended: an arrival costs what has changed, and a few numpy calls over what there is.
    """

    def __init__(self, views: Sequence[ReplicaView]) -> None:
        self._views = views
        size = len(views)
        self._changed = set(range(size))
        for position, view in enumerate(views):
            if view.board is not None:
                view.board._views = ()  # it would miss changes from now on: of no use any more
            view.report_to(self, position, self._changed)
        self._until = np.zeros(size, dtype=np.int64)
        columns = np.zeros((4, size))
        self._written = tuple(columns)
        shown = columns.view()
        shown.flags.writeable = False
        self.outstanding, self.prefill, self.generated, self.free_tokens = shown
        self._watches_kv = False
        self._counted: set[int] = set()  # changed, and only `outstanding` asked for since

    @classmethod
    def over(cls, views: Sequence[ReplicaView]) -> LoadBoard:
        """The board of this very sequence: the one it has, or a new one if it has none or its length has changed.

        So routers that look at one sequence share a board, and a pool whose members have changed gets a new one if
        it is handed in as a new sequence, or as one of another length.
        """
        board = views[0].board
        if board is not None and board._views is views and board.outstanding.size == len(views):
            return board
        return cls(views)

    def watch_kv(self) -> None:
        """From the next `refresh` on, keep `free_tokens`, too."""
        if not self._watches_kv:
            self._watches_kv = True
            self._changed.update(range(len(self._views)))

    def refresh(self, now: int) -> None:
        """Bring the arrays up to `now` (int ns)."""
        until, changed = self._until, self._changed
        outstanding, prefill, generated, free_tokens = self._written
        changed |= self._counted
        if until[until.argmin()] < now:
            changed.update((until < now).nonzero()[0].tolist())
        for position in changed:
            view = self._views[position]
            outstanding[position], prefill[position], generated[position], until[position] = view.work_left(now)
            if self._watches_kv:
                free_tokens[position] = view.free_blocks * view.block_size
        changed.clear()
        self._counted.clear()

    def count(self) -> None:
        """Bring `outstanding` alone up to date."""
        outstanding = self._written[0]
        for position in self._changed:
            outstanding[position] = self._views[position].outstanding
        self._counted |= self._changed
        self._changed.clear()
