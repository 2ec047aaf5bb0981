"""Power of two choices: the less loaded of two replicas drawn at random (Mitzenmacher, 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.routers.base import Router
from llmsim.routers.view import ReplicaView

if TYPE_CHECKING:
    from llmsim.core.request import Request


@dataclass
class PowerOfTwo(Router):
    """Of two different replicas, drawn uniformly, the one with fewer outstanding requests."""

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """Two draws from the run's routing stream, then the shorter queue."""
        first = int(self.rng.integers(self.replicas))
        second = (first + 1 + int(self.rng.integers(self.replicas - 1))) % self.replicas if self.replicas > 1 else first
        pair = sorted({first, second})
        return self.least({i: replicas[i].outstanding for i in pair}, pair)
