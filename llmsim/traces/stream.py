"""A workload in blocks: the requests of `build_workload`, bit for bit, without holding more than a block of them.

They are made twice: once when the stream is opened, to check every row and to learn what a run must know before it
begins, and once for each `blocks()`. Only what needs all rows at once (shuffled or resampled rows, the twin of a trace
file, models with different limits on lengths) is held, as the arrays of `build_workload`: 32 bytes a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmsim.core.request import SloClass
from llmsim.errors import ConfigError
from llmsim.traces import shipped
from llmsim.traces.blocks import Plan
from llmsim.traces.files import first_bytes
from llmsim.traces.limits import check_limit
from llmsim.traces.selection import open_twin, trace_file
from llmsim.traces.served_models import Limits, shared_limit
from llmsim.traces.spec import WorkloadSpec
from llmsim.traces.twinfile import is_twin
from llmsim.traces.workload import Streams, Workload, build_workload, workload_of

BLOCK = 32_768
"""Requests of a block."""


@dataclass(frozen=True, slots=True)
class WorkloadStream:
    """A workload that is made a block at a time; what is said of `Workload` holds for the stream as a whole.

    Times are of the whole, too: `first_arrival_ns` need not be 0, and a block's arrivals follow on those before it.
    """

    num_requests: int
    first_arrival_ns: int
    last_arrival_ns: int
    slo_classes: tuple[SloClass, ...]
    max_concurrency: int | None
    dropped: dict[str, int]
    description: dict[str, Any]
    tells_content: bool
    _open: Callable[[], Iterator[Workload]] = field(repr=False)

    def __len__(self) -> int:
        return self.num_requests

    def blocks(self) -> Iterator[Workload]:
        """The requests from the first on, in blocks in order of arrival; every call begins anew.

        A block's `slo_index` points into the stream's `slo_classes`; `dropped` and `description` are the stream's
        alone. TraceError at the end of a trace file that has changed since the stream was opened.
        """
        return self._open()


def stream_workload(
    spec: WorkloadSpec, seed: int, max_model_len: Limits = None, block: int = BLOCK
) -> WorkloadStream:
    """The workload that `build_workload` makes of these arguments, in blocks of at most `block` requests.

    Everything is checked here, with the errors of `build_workload`: iterating finds nothing new in a trace.
    ConfigError for a block below 1.
    """
    if isinstance(block, bool) or not isinstance(block, int) or block < 1:
        raise ConfigError(f"block must be a whole number >= 1 but got {block!r}")
    Streams.of(seed)  # a bad seed is told before a file is read
    shared = shared_limit(max_model_len, spec.on_long)
    check_limit(shared, spec.on_long)
    if isinstance(max_model_len, Mapping) and len(set(max_model_len.values())) > 1:
        # What limit holds for a request is known when its class is.
        return stream_of(build_workload(spec, seed, max_model_len), block)
    if spec.trace is None:
        return _planned(Plan(spec, seed, max_model_len, block))
    path = shipped.resolve(spec.trace)
    if is_twin(first_bytes(path, 100)):
        return _planned(Plan(spec, seed, max_model_len, block, twin=open_twin(spec, path)))
    trace = trace_file(spec, path, shared, block)
    if spec.lengths.kind in ("resampled", "empirical") or (spec.lengths.kind == "trace" and spec.shuffle):
        whole = trace.whole(spec.hash_block_size is not None)
        return stream_of(workload_of(spec, seed, whole, max_model_len), block)
    return _planned(Plan(spec, seed, max_model_len, block, trace=trace))


def _planned(plan: Plan) -> WorkloadStream:
    """A stream that is made as it is read."""
    total = plan.survey()
    return WorkloadStream(
        num_requests=total.num_requests,
        first_arrival_ns=total.first_arrival_ns,
        last_arrival_ns=total.last_arrival_ns,
        slo_classes=plan.slo_classes,
        max_concurrency=plan.spec.arrivals.max_concurrency,
        dropped=total.dropped,
        description=plan.describe(total),
        tells_content=plan.spec.hash_block_size is not None,
        _open=plan.blocks,
    )


def stream_of(workload: Workload, block: int = BLOCK) -> WorkloadStream:
    """A stream of slices of a workload in memory, of `block` requests at most."""

    def slices() -> Iterator[Workload]:
        for start in range(0, len(workload), block):
            part = slice(start, start + block)
            yield Workload(
                arrival_ns=workload.arrival_ns[part],
                prompt_tokens=workload.prompt_tokens[part],
                output_tokens=workload.output_tokens[part],
                slo_index=workload.slo_index[part],
                slo_classes=workload.slo_classes,
                max_concurrency=workload.max_concurrency,
                contents=workload.contents and workload.contents[part],
            )

    return WorkloadStream(
        num_requests=len(workload),
        first_arrival_ns=int(workload.arrival_ns[0]),
        last_arrival_ns=int(workload.arrival_ns[-1]),
        slo_classes=workload.slo_classes,
        max_concurrency=workload.max_concurrency,
        dropped=workload.dropped,
        description=workload.description,
        tells_content=workload.tells_content,
        _open=slices,
    )
