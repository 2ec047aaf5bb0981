"""Kernels of matrix products, made or loaded before anything is timed: libraries do so at the first batch of a size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from llmsim.executors.packed_linear import PackedLinear


@torch.inference_mode()
def warm_up(module: nn.Module, rows: Iterable[int], dtype: torch.dtype, device: torch.device) -> None:
    """Run each shape of weights below `module` once with each of these numbers of rows."""
    parts = [part for part in module.modules() if isinstance(part, nn.Linear | PackedLinear)]
    shapes = {tuple(part.weight.shape): part for part in parts}
    sizes = sorted(set(rows))
    for (_, width), part in shapes.items():
        x = torch.zeros(sizes[-1], width, dtype=dtype, device=device)
        for count in sizes:
            part(x[:count])


def every_size(most: int) -> range:
    """On a CPU every number of rows has a kernel of its own."""
    return range(1, most + 1)


def typical_sizes(most: int) -> Iterator[int]:
    """On a GPU a kernel serves a range of sizes: every size to 64, then in steps that grow."""
    size = 1
    while size < most:
        yield size
        size += 1 if size < 64 else size // 16
    yield most
