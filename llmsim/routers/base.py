"""Router: picks the replica of an arriving request, from read-only views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llmsim.replica import Replica
    from llmsim.request import Request


class ReplicaView:
    """What a router may know of a replica."""

    __slots__ = ("_replica", "index")

    def __init__(self, index: int, replica: Replica) -> None:
        self.index = index
        self._replica = replica

    @property
    def waiting(self) -> int:
        """Requests queued, holding no KV."""
        return len(self._replica.scheduler.waiting)


class Router(ABC):
    """Chooses a replica for each arrival, at the moment it arrives. Parameters are dataclass fields."""

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        """Start a run over `replicas` replicas; `rng` is the run's stream for routing alone."""
        self.replicas = replicas
        self.rng = rng

    @abstractmethod
    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """Index of the replica that takes the request."""
