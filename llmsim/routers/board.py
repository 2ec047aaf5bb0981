"""LoadBoard: what all replicas have to do, as arrays, looked up again only where it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llmsim.routers.base import ReplicaView


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
