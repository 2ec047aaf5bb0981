"""simulate_stream(spec, out): a run whose memory follows the requests in flight, not the length of the workload."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.costs.ranges import ClusterRanges
from llmsim.engine.feasibility import LateArrivals
from llmsim.errors import SaveError
from llmsim.metrics import Tally, has_limits
from llmsim.metrics.samples import EXACT_VALUES
from llmsim.metrics.usage import Span
from llmsim.runs.folders import NewFolder
from llmsim.runs.headline import Headline
from llmsim.runs.manifest import manifest
from llmsim.runs.parquet import TableFiles
from llmsim.runs.results import Result
from llmsim.runs.sealed import seal
from llmsim.runs.setup import RunSetup, names_models
from llmsim.runs.streaming.stream import Stream
from llmsim.spec.run_spec import as_run
from llmsim.traces.stream import stream_of, stream_workload
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.engine.cluster import Cluster
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.stream import WorkloadStream
    from llmsim.traces.workload import Workload

NO_END_NS = 1 << 62
BLOCK = 1 << 14
"""Requests that are made at a time."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedResult(Headline):
    """What a streamed run leaves in memory: its summary and manifest; its tables lie in `folder` (None: nowhere)."""

    name: str
    summary: dict[str, Any] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    folder: Path | None = None

    def load(self, tables: Collection[str] | None = None) -> Result:
        """All of it in memory, as `simulate` would have returned it, or only the rows of some `tables`.

        Raises ValueError if no tables were kept.
        """
        if self.folder is None:
            raise ValueError("this run kept no tables: give simulate_stream a directory (`out`)")
        return Result.load(self.folder, tables)


def simulate_stream(
    spec: RunSpec | str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    scheduler: Any = None,
    workload: Workload | None = None,
    progress: Callable[[int, int], None] | None = None,
    arguments: list[str] | None = None,
    exact_values: int = EXACT_VALUES,
) -> StreamedResult:
    """Run a spec (or file, or mapping) as `simulate` does, its tables written to a new directory under `out` meanwhile.

    The summary is that of `simulate`, byte for byte, as long as no latency takes more than `exact_values` different
    values; past that its percentiles are within 0.1 % of their values, and the summary says so. Without `out` the
    tables are not kept. `scheduler` and `workload` as in `simulate`; `arguments` go into the manifest.

    Raises ConfigError, TraceError, CalibrationError, CapacityError, StalledError, or SaveError (with the result, if the
    run was over); then nothing is left under `out`.
    """
    began = time.perf_counter()
    spec = as_run(spec)
    setup = RunSetup(spec, scheduler)
    if workload is None:
        source = stream_workload(spec.workload, spec.seed, setup.limits, BLOCK)
    else:
        source = stream_of(workload, BLOCK)
        setup.check_models(workload.slo_classes, workload.slo_index)
    cluster = setup.cluster()
    _refuse_infeasible(cluster, source, open_end=source.max_concurrency is None and spec.horizon_s is None)
    tally, ranges = _tally(setup, source, exact_values), ClusterRanges(setup.calibrations)
    told = manifest(spec, source, [group.calibration for group in setup.groups], {})
    if arguments is not None:
        told = {"arguments": arguments, **told}
    result = StreamedResult(name=spec.name, summary={"scheduler": setup.label}, manifest=told)
    target, finished = None if out is None else NewFolder(out, result.folder_name()), None
    try:
        with nullcontext() if target is None else target as draft:
            with nullcontext() if draft is None else TableFiles(draft) as files:
                stream = Stream(setup, cluster, source, tally, ranges, files)
                served = {"total": len(source), "on_done": stream.done}
                setup.serve(cluster, stream.requests(), source.max_concurrency, progress, **served)
                stream.end()
                finished = replace(result, summary=setup.summary(tally, ranges, source, cluster))
            told |= {"wall_time": {"run_s": time.perf_counter() - began}, "streamed": True}
            if draft is not None:
                finished.write_texts(draft)
                seal(draft)
    except SaveError as error:
        error.result = finished
        raise
    return finished if target is None else replace(finished, folder=target.path)


def _refuse_infeasible(cluster: Cluster, source: WorkloadStream, *, open_end: bool) -> None:
    """Cluster.refuse_infeasible, a block at a time."""
    first_id, late_arrivals = 0, LateArrivals(cluster.pools if open_end else None)
    for block in source.blocks():
        lengths = block.prompt_tokens, block.output_tokens
        cluster.refuse_infeasible_lengths(*lengths, source.slo_classes, block.slo_index, first_id)
        late_arrivals.look(block.arrival_ns, source.slo_classes, block.slo_index, first_id)
        first_id += len(block)
    late_arrivals.refuse()


def _tally(setup: RunSetup, source: WorkloadStream, exact_values: int) -> Tally:
    """Over a stretch of the clock whose end is not known yet."""
    spec = setup.spec
    limited = has_limits(source.slo_classes, setup.slo)
    options = setup.tally_options(targets_expected=limited, models=names_models(source.slo_classes))
    start_ns = max(to_ns(spec.warmup_s), source.first_arrival_ns)
    latest = to_ns(spec.horizon_s) if spec.horizon_s else NO_END_NS
    return Tally(options, Span(start_ns, max(start_ns, latest), options.replicas), limit=exact_values)
