"""WorkBoard: what all replicas have left to do, as arrays, looked up again only where it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llmsim.routers.base import ReplicaView


class WorkBoard:
    """`outstanding`, `prefill` and `generated` by replica (int64), as ReplicaView.work_left has them at `refresh`.

    A replica is asked again if it committed, took a request or began a run since, or if an iteration of its run has
    ended: so an arrival costs what has changed, not what there is.
    """

    def __init__(self, views: Sequence[ReplicaView]) -> None:
        self._views = views
        self._changed = set(range(len(views)))
        for view in views:
            view.watched(self._changed)
        self._until = np.zeros(len(views), dtype=np.int64)
        self.outstanding, self.prefill, self.generated = (np.zeros(len(views), dtype=np.int64) for _ in range(3))

    def refresh(self, now: int) -> None:
        """Bring the arrays up to `now` (int ns)."""
        self._changed.update(np.flatnonzero(self._until < now).tolist())
        for i in self._changed:
            view = self._views[i]
            self.outstanding[i], self.prefill[i], self.generated[i] = view.work_left(now)
            self._until[i] = view.steady_until
        self._changed.clear()
