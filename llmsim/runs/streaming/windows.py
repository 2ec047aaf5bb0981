"""Windows: the tables of a run, a stretch of it at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER, Request
from llmsim.engine.cluster import Cluster
from llmsim.metrics import Timeline
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import ints
from llmsim.runs.streaming.kept import KeptEnds
from llmsim.runs.tables import replica_iterations, request_table, stacked, token_range_table


class Window(NamedTuple):
    """Requests that are done with, in order of their ids; their token ranges and the timeline of these; and the
    iterations logged since the last window, by replica and number. Columns in docs/metrics.md."""

    requests: pd.DataFrame
    iterations: pd.DataFrame
    token_ranges: pd.DataFrame
    timeline: Timeline


class Windows:
    """Takes what a cluster's recorders have logged, each row once; `models` and `caching` as in request_table."""

    def __init__(self, cluster: Cluster, *, models: bool = False, caching: bool = False) -> None:
        self._cluster, self._models, self._caching = cluster, models, caching
        self._kept = [KeptEnds(replica) for replica in cluster.replicas]

    def take(self, done: Sequence[Request], in_flight: Iterable[Request]) -> Window:
        """The window of the requests that are `done` since the last one; `in_flight` are those that are not."""
        done = sorted(done, key=attrgetter("id"))
        iterations = self._iterations()
        ranges = token_range_table(done)
        timeline = self._timeline(len(done), np.array([r.id for r in done], dtype=np.int64), ranges)
        first = np.full(len(done), NEVER, dtype=np.int64)
        owner, at = np.unique(timeline.owner, return_index=True)
        first[owner] = timeline.ends[timeline.first[at]]
        requests = request_table(done, first, self._cluster.unstreamed, models=self._models, caching=self._caching)
        self._forget(in_flight)
        return Window(requests, iterations, ranges, timeline)

    def _iterations(self) -> pd.DataFrame:
        parts = []
        for index, (replica, kept) in enumerate(zip(self._cluster.replicas, self._kept, strict=True)):
            columns = replica.recorder.drain()
            parts.append(replica_iterations(index, columns, kept.next))
            kept.add(columns["end_ns"], columns["in_set"])
        return stacked(parts)

    def _timeline(self, requests: int, ids: Ints, ranges: pd.DataFrame) -> Timeline:
        """Ranges as places on the ends that are kept: of every replica's steps, then of all its iterations."""
        columns = [kept.step_ends for kept in self._kept] + [kept.ends for kept in self._kept]
        starts = np.concatenate([[0], np.cumsum([len(column) for column in columns])[:-1]])
        firsts = [kept.first_step for kept in self._kept] + [kept.first for kept in self._kept]
        shifts = starts - np.array(firsts, dtype=np.int64)
        column = ints(ranges, "replica") + np.where(ranges["in_set"].to_numpy(dtype=bool), 0, len(self._kept))
        shift = shifts[column]
        owner = np.searchsorted(ids, ints(ranges, "id"))
        first, last = ints(ranges, "first_iteration") + shift, ints(ranges, "last_iteration") + shift
        return Timeline(np.concatenate(columns), owner, first, last, requests)

    def _forget(self, in_flight: Iterable[Request]) -> None:
        of_replica: list[list[Request]] = [[] for _ in self._kept]
        for request in in_flight:
            if request.token_ranges:
                of_replica[request.replica].append(request)
        for kept, requests in zip(self._kept, of_replica, strict=True):
            kept.forget(requests)
