"""What an engine adds to the times of kernels: named terms, each with where it comes from. None was fitted to a run.

vLLM 0.19:

    async_scheduling        on: the default since 0.14. The host's work hides behind the device; batches are formed
                            one ahead
    capture_sizes           1, 2, 4, 8 to 256 by 8, to 512 by 16 (vllm/config): CUDA graphs exist for these token
                            counts, batches are padded up to them
    graph_gap_s             1.3 us from kernel to kernel inside a CUDA graph, and
    launch_gap_s            2.1 us on a stream (batches above the largest captured size): Hazy Research, "Look Ma, No
                            Bubbles!" (May 2025), measured on an H100
    kernels                 10 a layer (the pieces of a layer profile, the norm twice, and the KV write), 1 more where
                            queries and keys are normalised, 2 all-reduces with tensor parallelism, 4 once
    gpu_memory_utilization  0.9, the default
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmsim.costs.models import ModelConfig
from llmsim.errors import CalibrationError, same_or_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine and version: terms as in the table above; seconds, shares, token counts."""

    name: str
    async_scheduling: bool
    capture_sizes: tuple[int, ...]
    graph_gap_s: float
    launch_gap_s: float
    gpu_memory_utilization: float
    source: str

    def kernels(self, model: ModelConfig, tensor_parallel: int) -> int:
        """Kernels that an iteration runs one after the other."""
        layer = 10 + (1 if model.qk_norm else 0) + (2 if tensor_parallel > 1 else 0)
        return model.layers * layer + 4


_GAPS = (
    "kernel after kernel: 1.3 us in a CUDA graph, 2.1 us on a stream (Hazy Research, 'Look Ma, No Bubbles!', May 2025, "
    "measured on an H100), times the kernels of an iteration"
)

ENGINES = {
    "vllm-0.19": Engine(
        name="vllm-0.19",
        async_scheduling=True,
        capture_sizes=(1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)),
        graph_gap_s=1.3e-6,
        launch_gap_s=2.1e-6,
        gpu_memory_utilization=0.9,
        source="vLLM 0.19: default settings (async scheduling, CUDA graphs for up to 512 tokens); " + _GAPS,
    ),
}
ENGINES["kernels-only"] = replace(
    ENGINES["vllm-0.19"],
    name="kernels-only",
    async_scheduling=False,
    capture_sizes=(),
    graph_gap_s=0.0,
    launch_gap_s=0.0,
    source="no engine: the sum of the kernels' times alone",
)


def engine_named(name: str) -> Engine:
    """The engine of that name; CalibrationError with the known ones."""
    if name not in ENGINES:
        raise CalibrationError(f"there is no engine {name!r}.{same_or_all(name, ENGINES)}")
    return ENGINES[name]
