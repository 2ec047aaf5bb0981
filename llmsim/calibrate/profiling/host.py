"""The host's own time an iteration: a short live run, and what of it was not the forward pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmsim.core.kvcache import PagedKVCache
from llmsim.core.request import Request
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Recorder
from llmsim.executors.live import SCRATCH_PAGES, LiveExecutor
from llmsim.routers.round_robin import RoundRobin
from llmsim.schedulers.sarathi import Sarathi

if TYPE_CHECKING:
    from llmsim.executors.runner import ModelRunner

ARRIVAL_GAP_NS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOverheadMeasured:
    """Seconds between the end of an iteration and the next that the device did not work: median, p10 and p90."""

    median_s: float
    p10_s: float
    p90_s: float
    iterations: int
    requests: int

    def as_dict(self) -> dict[str, object]:
        """For the manifest."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"Measured in the real loop: {self.iterations} iterations of {self.requests} requests under Sarathi, "
            f"median (p10 {self.p10_s * 1e6:.0f} us, p90 {self.p90_s * 1e6:.0f} us): scheduling, index arrays, tokens "
            "back to the host, bookkeeping."
        )


def measure_host_overhead(runner: ModelRunner, *, requests: int = 48, seed: int = 0) -> HostOverheadMeasured:
    """Serve `requests` short prompts for real, all but at once, and take the time that is not the forward pass."""
    draw = np.random.default_rng(seed)
    longest = min(128, runner.config.max_model_len // 4)
    served = [
        Request(i, i * ARRIVAL_GAP_NS, int(draw.integers(8, longest)), int(draw.integers(8, 48)))
        for i in range(requests)
    ]
    router = RoundRobin()
    router.bind(1, draw)
    cluster = Cluster(router)
    kv = PagedKVCache(runner.num_pages - SCRATCH_PAGES, runner.spec.page_size)
    executor = LiveExecutor(runner, kv, seed=seed)
    scheduler = Sarathi(chunk_size=256, max_num_seqs=32)
    scheduler.bind(kv, runner.config.max_model_len)
    recorder = Recorder()
    cluster.add_replica(scheduler, executor, kv, recorder, macro=False)
    cluster.run(served)
    host = np.array([t.end_ns - t.start_ns - t.forward_ns for t in executor.timings]) / 1e9
    low, middle, high = np.percentile(host, (10, 50, 90)).tolist()
    return HostOverheadMeasured(
        median_s=middle, p10_s=low, p90_s=high, iterations=len(host), requests=requests
    )
