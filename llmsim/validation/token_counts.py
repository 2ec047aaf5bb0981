"""Iterations counted by tokens: a request of n tokens took part in n - 1 iterations between its first and last token.

Two events at the very same time are ends of the same iteration. So requests that share such times tie events together
whose distance in iterations is then known exactly, whatever a batch-time model says. That holds where every running
request gets one token an iteration: not with speculative decoding, not across a preemption. Times that a client took
over a network hardly ever coincide: then only the two events of one request are tied.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llmsim.metrics.timeline import ints

if TYPE_CHECKING:
    import pandas as pd


class Stretch(NamedTuple):
    """Windows `first` to `last` (rows, the last excluded) that follow each other, and their iterations in all."""

    first: int
    last: int
    iterations: int


class _Ties:
    """Events and the iterations between them, as a union-find with distances."""

    def __init__(self) -> None:
        self._above: dict[int, tuple[int, int]] = {}  # event -> (another of its group, iterations after that one)

    def find(self, event: int) -> tuple[int, int]:
        """One event of its group, the same for all, and how many iterations after that this one is."""
        path, at = [], event
        while at in self._above:
            path.append(at)
            at = self._above[at][0]
        steps = 0
        for node in reversed(path):
            steps += self._above[node][1]
            self._above[node] = (at, steps)
        return at, steps

    def tie(self, earlier: int, later: int, iterations: int) -> bool:
        """Say how far apart two events are; False if that contradicts what is known."""
        (root, a), (other, b) = self.find(earlier), self.find(later)
        if root == other:
            return b - a == iterations
        self._above[other] = (root, a + iterations - b)
        return True

    def groups(self, events: list[int]) -> list[list[tuple[int, int]]]:
        """(time, iterations) of the events of each group, in order of time."""
        held: dict[int, list[tuple[int, int]]] = {}
        for event in sorted(events):
            root, steps = self.find(event)
            held.setdefault(root, []).append((event, steps))
        return list(held.values())


def tied_stretches(requests: pd.DataFrame, windows: pd.DataFrame) -> tuple[list[Stretch], int]:
    """Stretches that windows (decode_windows) fill without a gap, and the requests that contradict the others.

    `requests` is a request table of finished requests. Any contradiction means that not every running request got one
    token an iteration: then there are no stretches.
    """
    first, last = ints(requests, "first_token_ns").tolist(), ints(requests, "finish_ns").tolist()
    steps = (ints(requests, "generated") - 1).tolist()
    ties = _Ties()
    contradictions = sum(not ties.tie(*row) for row in zip(first, last, steps, strict=True) if row[1] > row[0])
    if contradictions:
        return [], contradictions
    start = ints(windows, "start_ns")
    until = np.concatenate([[0], np.cumsum(ints(windows, "window_ns"))])
    found = []
    for group in ties.groups(sorted({*first, *last})):
        for (a, before), (b, after) in pairwise(group):
            i, j = np.searchsorted(start, [a, b]).tolist()
            if until[j] - until[i] == b - a and after > before:
                found.append(Stretch(i, j, after - before))
    return sorted(found), 0
