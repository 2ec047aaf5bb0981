"""Engines by name: what a vLLM server of a version starts with on a class of GPU when it is told nothing.

Read in the sources of vLLM 0.15.0, 0.19.0, 0.24.0 and 0.33.0 (API server, decoder models, no speculation):

    tokens, sequences       vllm/engine/arg_utils.py, get_batch_defaults: by the card's memory and name
    reserve_full_isl        vllm/config/scheduler.py, scheduler_reserve_full_isl: since 0.19; no such rule in 0.15
    prefix caching, chunks  on (vllm/engine/arg_utils.py); async scheduling on (vllm/config/vllm.py)
    memory share            vllm/config/cache.py, gpu_memory_utilization
    CUDA graphs             vllm/config/vllm.py, cudagraph_capture_sizes
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from llmsim.errors import ConfigError, slip_of

POLICY = "vllm_v1"
"""The policy of every engine here."""


class GpuClass(StrEnum):
    """What vLLM tells cards apart by: the memory that the driver reports, and the name."""

    LARGEST = "160 GiB and more"
    LARGE = "70 to 160 GiB, no A100"
    OTHERS = "others and any A100"


_NAMES = {
    GpuClass.LARGEST: r"g?b[23]00|mi300x|mi325x|mi35[05]x",
    GpuClass.LARGE: r"g?h[12]00|h800|h20|rtx[ _-]?pro[ _-]?6000|mi300a",
    GpuClass.OTHERS: r"a100|a10g?|a16|a30|a40|a6000|l4|l20|l40s?|v100|t4|gb10|(geforce[ _-]?)?rtx",
}
"""Cards by the words in their names, from data sheets; GB10 is left out of the large ones by vLLM itself."""
_CAPABILITY_10 = r"g?b[23]00"


def _has(device: str, words: str) -> bool:
    return re.search(rf"(?<![a-z0-9])({words})(?![0-9])", device.lower()) is not None


def gpu_class(device: str) -> tuple[GpuClass, bool]:
    """The class of a calibration's device, and whether its name is known.

    Of an unknown one it is OTHERS, as in vLLM where a card's memory cannot be read.
    """
    if "a100" in device.lower():  # vLLM's own test
        return GpuClass.OTHERS, True
    for found in GpuClass:
        if _has(device, _NAMES[found]):
            return found, True
    return GpuClass.OTHERS, False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDefaults:
    """An engine and version: `tokens` and `sequences` an iteration by class of GPU, the rest as in the table above.

    `largest_graph` tokens, `largest_graph_10` on compute capability 10.x; `graph_at`: settings of their own graph.
    """

    version: str
    tokens: Mapping[GpuClass, int]
    sequences: Mapping[GpuClass, int]
    reserve_full_isl: bool
    gpu_memory_utilization: float
    largest_graph: int = 512
    largest_graph_10: int = 512
    graph_at: tuple[str, ...] = ()

    def capture_sizes(self, device: str, tokens: int, sequences: int) -> tuple[int, ...]:
        """Token counts with a CUDA graph, given the budget of tokens and sequences."""
        limit = self.largest_graph_10 if _has(device, _CAPABILITY_10) else self.largest_graph
        most = min(2 * sequences, limit, tokens)
        usual = (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16))
        own = {"tokens": tokens, "sequences": sequences}
        return tuple(sorted({size for size in (*usual, *(own[name] for name in self.graph_at)) if size <= most}))


_SEQUENCES = {GpuClass.LARGEST: 1024, GpuClass.LARGE: 1024, GpuClass.OTHERS: 256}
_TOKENS = {GpuClass.LARGEST: 8192, GpuClass.LARGE: 8192, GpuClass.OTHERS: 2048}

ENGINES = {
    "vllm-0.15": EngineDefaults(
        version="0.15", tokens=_TOKENS, sequences=_SEQUENCES, reserve_full_isl=False, gpu_memory_utilization=0.9
    ),
    "vllm-0.19": EngineDefaults(
        version="0.19", tokens=_TOKENS, sequences=_SEQUENCES, reserve_full_isl=True, gpu_memory_utilization=0.9
    ),
    "vllm-0.24": EngineDefaults(
        version="0.24", tokens=_TOKENS, sequences=_SEQUENCES, reserve_full_isl=True, gpu_memory_utilization=0.92,
        graph_at=("tokens",),
    ),
    "vllm-0.33": EngineDefaults(
        version="0.33", tokens=_TOKENS | {GpuClass.LARGEST: 16384}, sequences=_SEQUENCES, reserve_full_isl=True,
        gpu_memory_utilization=0.92, largest_graph_10=1024, graph_at=("tokens", "sequences"),
    ),
}  # fmt: skip


def engine_defaults(name: str) -> EngineDefaults:
    """The engine of that name; ConfigError with those that there are."""
    if name not in ENGINES:
        raise ConfigError(
            f"name must be an engine and version ({', '.join(ENGINES)}) but got {name!r}.{slip_of(name, ENGINES)}"
        )
    return ENGINES[name]


def sizes_text(sizes: Sequence[int]) -> str:
    """Rising sizes in words, equal steps together: '1, 2, 4, 8 to 248 by 8, 256 to 512 by 16'."""
    words, at = [], 0
    while at < len(sizes):
        end = at + 1
        while end < len(sizes) - 1 and sizes[end + 1] - sizes[end] == sizes[at + 1] - sizes[at]:
            end += 1
        if end - at >= 3:
            words.append(f"{sizes[at]} to {sizes[end]} by {sizes[at + 1] - sizes[at]}")
            at = end + 1
        else:
            words.append(str(sizes[at]))
            at += 1
    return ", ".join(words)


def engines() -> list[dict[str, Any]]:
    """Each engine with its defaults by class of GPU: plain JSON values."""
    return [
        {
            "name": name,
            "policy": POLICY,
            "gpu_classes": {
                str(one): {"max_num_batched_tokens": engine.tokens[one], "max_num_seqs": engine.sequences[one]}
                for one in GpuClass
            },
            "enable_prefix_caching": True,
            "async_scheduling": True,
            "reserve_full_isl": engine.reserve_full_isl,
            "gpu_memory_utilization": engine.gpu_memory_utilization,
            "largest_cuda_graph": engine.largest_graph,
            "largest_cuda_graph_on_compute_capability_10": engine.largest_graph_10,
        }
        for name, engine in ENGINES.items()
    ]


def engines_text(found: Sequence[Mapping[str, Any]]) -> str:
    """A paragraph an engine: its policy, its budgets by class of GPU, its switches."""
    paragraphs = []
    for one in found:
        lines = [f"{one['name']}  policy {one['policy']}"]
        lines += [
            f"    {gpu}: {each['max_num_batched_tokens']:,} tokens and {each['max_num_seqs']:,} sequences an iteration"
            for gpu, each in one["gpu_classes"].items()
        ]
        lines.append("    prefix caching on, async scheduling on, chunked prefill on")
        lines.append(f"    reserve_full_isl {'on' if one['reserve_full_isl'] else 'off'}")
        lines.append(f"    memory share {one['gpu_memory_utilization']:g} (told; KV blocks stay the calibration's)")
        graph, graph_10 = one["largest_cuda_graph"], one["largest_cuda_graph_on_compute_capability_10"]
        more = f", {graph_10:,} on compute capability 10.x" if graph_10 != graph else ""
        lines.append(f"    largest CUDA graph: twice the sequences, at most {graph:,} tokens{more}")
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)
