"""Stream: hands a cluster its requests one by one, and files those that are done away, a window at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pandas as pd

from llmsim.metrics import metrics_on
from llmsim.runs.setup import names_models
from llmsim.runs.streaming.windows import Windows
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.core.request import Request
    from llmsim.costs.ranges import ClusterRanges
    from llmsim.engine.cluster import Cluster
    from llmsim.metrics import Tally
    from llmsim.runs.parquet import TableFiles
    from llmsim.runs.setup import RunSetup
    from llmsim.traces.stream import WorkloadStream

FILE_AT = 1 << 16
"""A window is filed when so many requests are done ..."""
FILE_ITERATIONS = 1 << 19
"""... or so many iterations logged (70 MiB as rows): windows cost something for every replica, waiting costs memory."""
LOOK_EVERY = 256
"""Requests sent between two looks at whether a window is due."""


class Stream:
    """A workload on its way through a cluster into `tally`, `ranges` and, if there are any, `files`."""

    def __init__(
        self,
        setup: RunSetup,
        cluster: Cluster,
        workload: WorkloadStream,
        tally: Tally,
        ranges: ClusterRanges,
        files: TableFiles | None,
    ) -> None:
        self._setup, self._cluster, self._workload = setup, cluster, workload
        self._tally, self._ranges, self._files = tally, ranges, files
        self._windows = Windows(cluster, models=names_models(workload.slo_classes), caching=setup.caching)
        self._done: list[Request] = []
        self._filed = 0
        self._horizon_ns = to_ns(setup.spec.horizon_s or 0)

    def requests(self) -> Iterator[Request]:
        """The workload's requests in order of arrival, ids 0, 1, ..."""
        first_id = 0
        for block in self._workload.blocks():
            requests = block.requests(first_id)
            for at in range(0, len(requests), LOOK_EVERY):
                yield from requests[at : at + LOOK_EVERY]
                if self._due():
                    self._file_settled()
            first_id += len(block)

    def _due(self) -> bool:
        if len(self._done) >= FILE_AT:
            return True
        logged = sum(replica.recorder.iterations for replica in self._cluster.replicas)
        return logged - self._filed >= FILE_ITERATIONS

    def done(self, request: Request) -> None:
        """This one was answered or rejected."""
        self._done.append(request)

    def end(self) -> None:
        """The run is over: file what is left, requests that were cut off as unfinished."""
        cut_off = list(self._cluster.in_flight.values())
        last_ns = max([self._tally.last_finish_ns, *(request.finish_ns for request in self._done)])
        self._tally.end(max(last_ns, self._horizon_ns) if cut_off else last_ns)  # what lies past it is filed only now
        self._file(self._done + cut_off, ())

    def _file_settled(self) -> None:
        """File those to whom nothing more can happen: one that is done and departing may still be preempted, where a
        client's answer has called for the next request in the middle of an iteration's end."""
        departing = {request.id for replica in self._cluster.replicas for request in replica.scheduler.departing}
        done, self._done = self._done, [request for request in self._done if request.id in departing]
        if self._done:
            done = [request for request in done if request.id not in departing]
        if done or not self._done:
            self._file(done, [*self._cluster.in_flight.values(), *self._done])

    def _file(self, done: list[Request], in_flight: Iterable[Request]) -> None:
        window = self._windows.take(done, in_flight)
        self._tally.add_requests(window.requests, window.timeline)
        iterations = window.iterations
        self._filed += len(iterations)
        self._ranges.add(iterations)
        self._tally.add_iterations(iterations)
        if self._files is not None:
            setup = self._setup
            latencies = metrics_on(
                window.requests, window.timeline, definitions=setup.definitions, slo=setup.slo
            ).drop(columns="id")
            self._files.write("requests", pd.concat([window.requests, latencies], axis="columns"))
            self._files.write("iterations", window.iterations)
            self._files.write("token_ranges", window.token_ranges)
