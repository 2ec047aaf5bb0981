"""Random: each arrival goes to a replica drawn uniformly (the planner of RAD's theorem, arXiv 2508.01002)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.routers.base import Router
from llmsim.routers.view import ReplicaView

if TYPE_CHECKING:
    from llmsim.core.request import Request


@dataclass
class RandomRouter(Router):
    """Uniform and independent of everything."""

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """A uniform draw from the run's routing stream."""
        return int(self.rng.integers(self.replicas))
