"""Seconds of an all-reduce as vLLM does it: its own kernel where that is allowed, NCCL otherwise.

vLLM's custom all-reduce is measured in kernel tables, whose sizes are numbers of bf16 elements, not bytes: the
benchmark sums `torch.ones(message_size)` in bf16, and at equal size it agrees with NCCL's own table of 2-byte elements
within 1 %; read as bytes, an H100's bus would run at half of NCCL's speed. Beyond the last size the last two go on.

Without NVLink vLLM uses its kernel for two cards and up to 8 MiB only (custom_all_reduce.py); everything else there
goes through NCCL, which no table holds. It is estimated as a ring: LATENCY_S a card, and 2 (n - 1) / n of the bytes at
SHARE of the link, and no less than the measured kernel takes for 8 MiB: more bytes over the same link are not faster.
With NVLink the measured kernel stands for all sizes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmsim.calibrate.importers.gpus import Gpu
from llmsim.calibrate.importers.kernel_files import read_table
from llmsim.calibrate.importers.rising import rising
from llmsim.errors import CalibrationError

CUSTOM_BYTES = 8 * 2**20
ELEMENT_BYTES = 2
"""Of a bf16 value."""
SHARE = 0.75
"""Of the one-way rate: published runs of nccl-tests reach 20-21 GB/s on PCIe 4 (NVIDIA/nccl issue 340, two cards: also
15 us for 64 KB) and 35 GB/s on PCIe 5 (issue 1639, four cards)."""
LATENCY_S = 10e-6

Floats = NDArray[np.float64]


def needs_table(gpu: Gpu, cards: int) -> bool:
    """Whether the measured kernel is used at all."""
    return gpu.nvlink or cards == 2


def all_reduce_seconds(path: str | Path | None, gpu: Gpu, cards: int, sizes: Floats) -> Floats:
    """Seconds of an all-reduce of each size (bytes) among `cards`; `path` may be None where no table is needed.

    Raises CalibrationError for a number of cards that was not measured.
    """
    ring = LATENCY_S * cards + 2 * (cards - 1) / cards * sizes / (SHARE * gpu.link)
    if not needs_table(gpu, cards) or path is None:
        return ring
    table = read_table(Path(path), "custom_allreduce")
    rows = table[(table["num_gpus"] == cards) & table["backend"].str.contains("graph")]
    if rows.empty:
        known = ", ".join(str(n) for n in sorted(table["num_gpus"].unique()))
        raise CalibrationError(f"{path}: has no all-reduce among {cards} cards in CUDA graphs; it has {known}")
    line = rows.groupby("message_size")["seconds"].median()
    at, seconds = ELEMENT_BYTES * line.index.to_numpy(dtype=np.float64), rising(line.to_numpy())
    measured = np.interp(sizes, at, seconds)
    if len(at) > 1:
        measured += np.maximum(0.0, sizes - at[-1]) * (seconds[-1] - seconds[-2]) / (at[-1] - at[-2])
    if gpu.nvlink:
        return np.asarray(measured, dtype=np.float64)
    nccl = np.maximum(ring, np.interp(CUSTOM_BYTES, at, seconds))
    return np.asarray(np.where(sizes <= CUSTOM_BYTES, measured, nccl), dtype=np.float64)


def all_reduce_source(path: Path | None, gpu: Gpu, cards: int) -> str:
    """Where the times are from."""
    measured = "" if path is None else path.name
    ring = f"NCCL estimated at {SHARE * gpu.link / 1e9:.0f} GB/s over PCIe"
    if gpu.nvlink:
        return measured
    return f"{measured} up to 8 MiB, {ring} above" if needs_table(gpu, cards) else ring
