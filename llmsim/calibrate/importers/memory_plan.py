"""How many KV blocks an engine finds room for on a card: the arithmetic, or a refusal that shows it.

    blocks = (utilisation * memory - weights - activations - CUDA graphs - context) / bytes of a block

What vLLM prints at its start (`num_gpu_blocks`) is better than any plan, and takes its place where it is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmsim.calibrate.importers.gpus import Gpu
from llmsim.costs.models import ModelConfig
from llmsim.errors import CapacityError
from llmsim.units import GIB

CONTEXT_GIB = 0.5
"""CUDA context and libraries of a process: a round figure, not measured."""
GRAPHS_GIB = 0.35
"""CUDA graphs of about fifty sizes: a round figure, not measured."""
VALUE_BYTES = 2
"""bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bytes a card; `num_blocks` blocks of `block_bytes` fit into `kv`."""

    weights: int
    activations: int
    overhead: int
    kv: int
    block_bytes: int
    num_blocks: int
    text: str


def plan_memory(
    model: ModelConfig,
    gpu: Gpu,
    *,
    tensor_parallel: int = 1,
    utilisation: float = 0.9,
    max_num_batched_tokens: int = 2048,
    max_num_seqs: int = 256,
    block_size: int = 16,
) -> Plan:
    """The plan of one of `tensor_parallel` equal cards, in bf16.

    Activations at their largest: the input and output of a layer's MLP for the token budget, or float32 logits of all
    sequences three times over (logits, probabilities, a sorted copy). Raises CapacityError with the arithmetic where
    the model does not fit, or where no KV head is left for a card.
    """
    if model.kv_heads % tensor_parallel or model.heads % tensor_parallel:
        raise CapacityError(
            f"{model.name} has {model.heads} heads and {model.kv_heads} KV heads, which {tensor_parallel} cards cannot "
            "share evenly; choose a tensor-parallel degree that divides both"
        )
    weights = model.parameters * VALUE_BYTES // tensor_parallel
    mlp = max_num_batched_tokens * (2 * model.hidden + 3 * model.mlp // tensor_parallel) * VALUE_BYTES
    logits = 3 * 4 * max_num_seqs * model.vocabulary
    activations = max(mlp, logits)
    overhead = round((CONTEXT_GIB + GRAPHS_GIB) * GIB)
    usable = round(utilisation * gpu.memory_gib * GIB)
    kv = usable - weights - activations - overhead
    block = block_size * model.kv_token_bytes(VALUE_BYTES) // tensor_parallel
    text = (
        f"{utilisation:g} of {gpu.memory_gib:g} GiB - weights {weights / GIB:.2f} - activations "
        f"{activations / GIB:.2f} - CUDA graphs {GRAPHS_GIB:g} - context {CONTEXT_GIB:g} = {kv / GIB:.2f} GiB for KV"
    )
    if kv < block:
        raise CapacityError(
            f"{model.name} in bf16 does not fit {tensor_parallel} x {gpu.title}: {text}; use more cards (--tp) or a "
            "smaller model"
        )
    return Plan(
        weights=weights, activations=activations, overhead=overhead, kv=kv, block_bytes=block, num_blocks=kv // block,
        text=f"Memory plan, not measured: {text} a card, in blocks of {block / 2**20:g} MiB.",
    )  # fmt: skip
