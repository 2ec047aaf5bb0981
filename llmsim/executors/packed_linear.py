"""Matrix products of a CPU's float32 model with weights that oneDNN has packed once.

torch's own float32 product calls a BLAS whose time jumps with the number of rows (7 rows cost more than 8) and that was
two to four times slower than this on the AMD processor it was tried on. With packed weights a few tokens cost as much
as one, and many a line: the shape that batches have on a GPU, too. oneDNN makes a kernel for every number of rows
when first meets it, which takes milliseconds: `warm_up.py` has it make them beforehand.
"""

from __future__ import annotations

import os

import torch
from torch import nn

ROWS_EXPECTED = 64
"""The layout is chosen for batches of about this many tokens."""

# Read at the first kernel. The default, 1,024, is too few for one kernel a shape and number of rows.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536")


class PackedLinear(nn.Module):
    """x @ weight.T + bias for float32 on a CPU; `weight` is unpacked when asked for."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS_EXPECTED)
        self.bias = linear.bias

    @property
    def weight(self) -> torch.Tensor:
        """(out, in), a copy."""
        dense: torch.Tensor = self._packed.to_dense()
        return dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(T, in) -> (T, out)."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return out


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this torch packs weights of such a model."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch has no types there
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def pack(module: nn.Module) -> None:
    """Replace every nn.Linear below `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child))
        else:
            pack(child)
