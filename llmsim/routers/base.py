"""Router: picks the replica of an arriving request, from read-only views."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.core.contract.policy import Policy

if TYPE_CHECKING:
    from llmsim.core.request import Request
    from llmsim.routers.view import ReplicaView

Loads = Sequence[float] | Mapping[int, float] | NDArray[np.float64]


class Router(Policy):
    """Chooses a replica for each arrival, at the moment it arrives. Parameters are dataclass fields."""

    TO_CALL = ("least",)

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

    def answered(self, request: Request) -> None:  # a hook
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
