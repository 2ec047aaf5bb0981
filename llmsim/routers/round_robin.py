"""Round robin: replicas take arrivals in turn, whatever they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.routers.base import Router
from llmsim.routers.view import ReplicaView

if TYPE_CHECKING:
    import numpy as np

    from llmsim.core.request import Request


@dataclass
class RoundRobin(Router):
    """The nth arrival goes to replica n mod replicas."""

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        """Start at the first replica."""
        super().bind(replicas, rng)
        self._next = 0

    def resize(self, before: Sequence[int | None]) -> None:
        """Go on with the replica that was next, or the first after it that is left."""
        upcoming = (i for i, old in enumerate(before) if old is not None and old >= self._next)
        super().resize(before)
        self._next = next(upcoming, 0)

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """The next in turn."""
        chosen = self._next
        self._next = (chosen + 1) % self.replicas
        return chosen
