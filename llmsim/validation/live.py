"""Serving a run for real, and serving it again on the times that were recorded.

Both build the run just as `simulate` does, with the same scheduler objects; only what the replica runs on differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from llmsim.core.kvcache import KVCache, PagedKVCache
from llmsim.engine.recorder import Observer
from llmsim.errors import ConfigError
from llmsim.executors.live import SCRATCH_PAGES, IdleClock, LiveExecutor
from llmsim.executors.replay import ReplayExecutor
from llmsim.runs.simulation import simulate
from llmsim.validation.record import LiveRun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmsim.core.batch import Batch
    from llmsim.costs.base import CostModel
    from llmsim.engine.cluster import Progress
    from llmsim.executors.base import Executor
    from llmsim.executors.runner import ModelRunner
    from llmsim.runs.replica_groups import ReplicaGroup
    from llmsim.runs.results import Result
    from llmsim.schedulers.base import Scheduler
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.workload import Workload

PREFILL, DECODE = "prefill", "decode"


class CompositionLog(Observer):
    """Who was in each batch: one row a sequence and iteration, in the order of the batch."""

    def __init__(self) -> None:
        self._batches: list[list[tuple[int, str, int, int]]] = []

    def on_batch(self, batch: Batch, start_ns: int, ends: Sequence[int], scheduler: Scheduler, kv: KVCache) -> None:
        """As in Observer; a batch that repeats is not taken apart, so run step by step."""
        assert len(ends) == 1, "compositions are logged of step-by-step runs"
        rows = [(request.id, DECODE, 1, request.length) for request in batch.decode_list]
        if batch.decodes is not None:
            held = batch.decodes
            rows += [(request.id, DECODE, 1, held.length(request)) for request in held.members]
        rows += [
            (request.id, PREFILL, chunk, request.computed)
            for request, chunk in zip(batch.prefills, batch.chunks, strict=True)
        ]
        self._batches.append(rows)

    def table(self) -> pd.DataFrame:
        """Columns iteration, request, phase, tokens, context (tokens computed before a chunk, or a decode's length)."""
        rows = [(iteration, *row) for iteration, batch in enumerate(self._batches) for row in batch]
        return pd.DataFrame(rows, columns=["iteration", "request", "phase", "tokens", "context"])


def serve_live(
    spec: RunSpec,
    runner: ModelRunner,
    *,
    scheduler: Any = None,
    workload: Workload | None = None,
    clock: IdleClock = "skip",
    aside: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> LiveRun:
    """Run one spec on `runner`: real batches, real times. `aside` as in LiveExecutor, the rest as in `simulate`.

    Raises ConfigError for more than one replica, or a runner with fewer KV pages than the run has blocks.
    """
    if spec.cluster.replicas != 1:
        raise ConfigError(f"a live run has one replica, as there is one device, but got {spec.cluster.replicas}")
    executors: list[LiveExecutor] = []

    def machine(group: ReplicaGroup, cost: CostModel) -> tuple[Executor, KVCache]:
        _check_fit(group, runner)
        if group.engine.enable_prefix_caching:
            raise ConfigError(
                "engine.enable_prefix_caching is true, but the live executor shares no blocks between requests yet; "
                "leave it out"
            )
        kv = PagedKVCache(group.num_blocks, group.block_size, group.engine.watermark)
        executors.append(LiveExecutor(runner, kv, seed=spec.seed, clock=clock, aside=aside))
        return executors[-1], kv

    log = CompositionLog()
    result = simulate(
        spec.replace(step_by_step=True),
        scheduler=scheduler,
        workload=workload,
        observer=log,
        progress=progress,
        machine=machine,
    )
    timings = pd.DataFrame(executors[0].timings, columns=["start_ns", "end_ns", "forward_ns", "step_ns"])
    timings.insert(0, "iteration", range(len(timings)))
    measured = {"live": {"device": runner.spec.device, "backend": runner.spec.backend, "dtype": runner.spec.dtype}}
    measured["live"] |= {"model": runner.config.name, "clock": clock}
    return LiveRun(
        result=replace(result, manifest={**result.manifest, **measured}),
        timings=timings[["iteration", "forward_ns", "step_ns"]],
        composition=log.table(),
    )


def _check_fit(group: ReplicaGroup, runner: ModelRunner) -> None:
    if group.engine.enable_prefix_caching:
        raise ConfigError(
            "engine.enable_prefix_caching is true (named engines have it on), but a live run finds no KV blocks again; "
            "give --set engine.enable_prefix_caching=false"
        )
    if group.block_size != runner.spec.page_size:
        raise ConfigError(
            f"the run's KV blocks hold {group.block_size} tokens but the device's pages hold {runner.spec.page_size}; "
            "leave engine.block_size out, and give the executor the calibration's block size: kernels take other times "
            "on other pages"
        )
    if group.num_blocks + SCRATCH_PAGES > runner.num_pages:
        raise ConfigError(
            f"the run has {group.num_blocks} KV blocks, but the device was given {runner.num_pages} pages, "
            f"{SCRATCH_PAGES} of them for padding; lower engine.num_blocks to {runner.num_pages - SCRATCH_PAGES}"
        )
    if group.max_model_len > runner.config.max_model_len:
        raise ConfigError(
            f"the run takes sequences of {group.max_model_len} tokens but {runner.config.name} has positions for "
            f"{runner.config.max_model_len}; lower engine.max_model_len"
        )


def replay(
    spec: RunSpec, iterations: pd.DataFrame, *, scheduler: Any = None, workload: Workload | None = None
) -> tuple[Result, pd.DataFrame]:
    """The same run on the recorded end times of `iterations` (column end_ns, in order), and its composition.

    Raises StalledError as soon as the decisions part from the recorded ones so far that times do not fit.
    """

    def machine(group: ReplicaGroup, cost: CostModel) -> tuple[Executor, KVCache]:
        kv = group.kv_cache()
        return ReplayExecutor(iterations["end_ns"].tolist()), kv

    log = CompositionLog()
    result = simulate(
        spec.replace(step_by_step=True), scheduler=scheduler, workload=workload, observer=log, machine=machine
    )
    return result, log.table()
