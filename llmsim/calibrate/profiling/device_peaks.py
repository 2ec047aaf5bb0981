"""What a device can do at best, measured: for the report of a fit where no data sheet is known."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmsim.executors.runner import ModelRunner

REPEATS = 5


def device_peaks(runner: ModelRunner) -> tuple[float, float]:
    """FLOP/s of a square matrix product and bytes/s of a copy on the runner's device, each the median of a few.

    Both are large enough on a GPU that launching them does not count, and that the copy does not stay in its cache.
    """
    import torch

    on_gpu = runner.device.type == "cuda"
    size, copied = (8192, 2**30) if on_gpu else (1024, 2**26)
    dtype = runner.model.embedding.weight.dtype
    a, b = (torch.randn(size, size, device=runner.device).to(dtype) for _ in range(2))
    source = torch.zeros(copied, dtype=torch.uint8, device=runner.device)
    target = torch.empty_like(source)

    def timed(work: Callable[[], object]) -> float:
        times = []
        for _ in range(REPEATS + 1):  # the first one warms up
            began = time.perf_counter()
            work()
            if on_gpu:
                torch.cuda.synchronize(runner.device)
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    return 2 * size**3 / timed(lambda: a @ b), 2 * copied / timed(lambda: target.copy_(source))
