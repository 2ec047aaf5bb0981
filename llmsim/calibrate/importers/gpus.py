"""What is known of GPUs: the few facts that imported kernel times need besides themselves.

Data sheets give multiprocessors, L2, bandwidth and bf16 FLOP/s (dense); `memory_gib` is what the CUDA driver reports of
the card, less than the sheet's. `link` is the one-way rate between cards: NVLink, or PCIe x16 less its encoding and
headers (a fifth). `attention` is what vLLM's FlashAttention backend runs there: version 3 on Hopper, 2 elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from llmsim.errors import CalibrationError, same_or_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card. `bandwidth` and `link` in bytes/s, `flops` in bf16 FLOP/s, `l2_bytes` of L2 cache."""

    name: str
    title: str
    multiprocessors: int
    memory_gib: float
    bandwidth: float
    flops: float
    l2_bytes: int
    link: float
    nvlink: bool
    attention: str


_MIB = 2**20

GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="h200", title="NVIDIA H200", multiprocessors=132, memory_gib=139.8, bandwidth=4.8e12, flops=989e12,
            l2_bytes=50 * _MIB, link=450e9, nvlink=True, attention="fa3"),
        Gpu(name="h100", title="NVIDIA H100 80GB HBM3", multiprocessors=132, memory_gib=79.15, bandwidth=3.35e12,
            flops=989e12, l2_bytes=50 * _MIB, link=450e9, nvlink=True, attention="fa3"),
        Gpu(name="a100", title="NVIDIA A100-SXM4-80GB", multiprocessors=108, memory_gib=79.15, bandwidth=2.039e12,
            flops=312e12, l2_bytes=40 * _MIB, link=300e9, nvlink=True, attention="fa2"),
        Gpu(name="l40s", title="NVIDIA L40S", multiprocessors=142, memory_gib=44.4, bandwidth=0.864e12, flops=362e12,
            l2_bytes=96 * _MIB, link=26e9, nvlink=False, attention="fa2"),
        Gpu(name="rtx-pro-6000", title="NVIDIA RTX PRO 6000 Blackwell Server Edition", multiprocessors=188,
            memory_gib=94.97, bandwidth=1.597e12, flops=504e12, l2_bytes=128 * _MIB, link=52e9, nvlink=False,
            attention="fa2"),
        Gpu(name="rtx-4090", title="NVIDIA GeForce RTX 4090", multiprocessors=128, memory_gib=23.64,
            bandwidth=1.008e12, flops=165e12, l2_bytes=72 * _MIB, link=26e9, nvlink=False, attention="fa2"),
    )
}  # fmt: skip


def gpu_named(name: str) -> Gpu:
    """The card of that name; CalibrationError with the known ones."""
    if name not in GPUS:
        raise CalibrationError(
            f"nothing is known of a GPU {name!r}.{same_or_all(name, GPUS)} Add a line to "
            "llmsim/calibrate/importers/gpus.py for another"
        )
    return GPUS[name]


def unsplit_from(gpu: Gpu, kv_heads: int) -> int:
    """The fewest decodes whose keys FlashAttention 2 does not split among blocks: from there on each is read by one.

    Its num_splits_heuristic splits unless the blocks fill 0.8 of two a multiprocessor.
    """
    return ceil(0.8 * 2 * gpu.multiprocessors / kv_heads)


def decodes_per_wave(gpu: Gpu, heads: int, kv_heads: int) -> tuple[float, float]:
    """Decodes that the card reads at a time, alone and beside prompts, with `heads` and `kv_heads` on it.

    FlashAttention counts two thread blocks a multiprocessor (its heuristic for splitting keys). A decode is a block
    for each KV head (its query heads packed); beside prompts FlashAttention 2 makes it one for each query head.
    """
    blocks = 2 * gpu.multiprocessors
    beside = heads if gpu.attention == "fa2" else kv_heads
    return blocks / kv_heads, blocks / beside
