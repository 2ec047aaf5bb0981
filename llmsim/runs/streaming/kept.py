"""KeptEnds: when the latest iterations of a replica ended, as far back as requests in flight may still need it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llmsim.core.request import Request
from llmsim.engine.replica import Replica
from llmsim.metrics.quantiles import Ints

KEPT_AT_LEAST = 2
"""Iterations and steps that stay whoever needs them: requests may be about to emit their token of the last one."""


class KeptEnds:
    """Ends (ns) of a replica's iterations from number `first` on, and of the steps of its DecodeSet from
    `first_step` on."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.first = self.first_step = 0
        self.ends: Ints = np.empty(0, dtype=np.int64)
        self.step_ends: Ints = np.empty(0, dtype=np.int64)

    @property
    def next(self) -> int:
        """Number of the first iteration that has not been added."""
        return self.first + len(self.ends)

    def add(self, ends: Ints, in_set: Ints) -> None:
        """Ends of further iterations (n,), and whether the DecodeSet advanced in each."""
        self.ends = np.concatenate([self.ends, ends])
        self.step_ends = np.concatenate([self.step_ends, ends[in_set != 0]])

    def forget(self, in_flight: Iterable[Request]) -> None:
        """Drop what none of the requests in flight on this replica can ask for."""
        iteration, step = self.next - KEPT_AT_LEAST, self.first_step + len(self.step_ends) - KEPT_AT_LEAST
        for request in in_flight:
            for first in request.token_ranges[::2]:
                if first >= 0:
                    step = min(step, first)
                else:
                    iteration = min(iteration, -first - 1)
        decodes = self._replica.scheduler.decodes
        for request in decodes.members:
            step = min(step, decodes.since(request))
        drop = max(iteration - self.first, 0)
        self.ends, self.first = self.ends[drop:].copy(), self.first + drop
        drop = max(step - self.first_step, 0)
        self.step_ends, self.first_step = self.step_ends[drop:].copy(), self.first_step + drop
