"""Rules of the stand-in for flashinfer: which index arrays it takes, and attention over pages in float64.

Index tensors are int32 and contiguous, dtypes those of the plan, some arrays lie on the host and some on the device.
As everything is on the CPU here, `on_device` marks the memory that stands for the device's.
"""

from __future__ import annotations

from typing import Any

import torch

device_memory: dict[int, torch.Tensor] = {}
"""Address -> tensor that stands for memory of the device; held, so that the address is not used again."""

DECODE_PLAN_KEYWORDS = {
    "pos_encoding_mode", "window_left", "logits_soft_cap", "q_data_type", "kv_data_type", "o_data_type", "data_type",
    "sm_scale", "rope_scale", "rope_theta", "non_blocking", "block_tables", "seq_lens", "fixed_split_size",
    "disable_split_kv",
}  # fmt: skip


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """A copy whose memory counts as the device's."""
    copy = tensor.clone()
    device_memory[copy.untyped_storage().data_ptr()] = copy
    return copy


def is_on_device(tensor: torch.Tensor) -> bool:
    """Whether the tensor lies in memory marked as the device's."""
    return tensor.untyped_storage().data_ptr() in device_memory


def check_index(name: str, tensor: torch.Tensor, size: int, *, device: bool) -> None:
    assert isinstance(tensor, torch.Tensor), f"{name} must be a tensor"
    assert tensor.dtype == torch.int32, f"{name} must be int32 but is {tensor.dtype}"
    assert tensor.is_contiguous(), f"{name} must be contiguous"
    assert tensor.shape == (size,), f"{name} must be of shape ({size},) but is {tuple(tensor.shape)}"
    assert is_on_device(tensor) == device, f"{name} must be on the {'device' if device else 'host'}"


def check_tables(indptr: torch.Tensor, indices: torch.Tensor, last: torch.Tensor, page_size: int) -> int:
    """Page tables as both wrappers take them; returns the number of rows."""
    rows = len(last)
    assert rows > 0
    check_index("indptr", indptr, rows + 1, device=False)
    check_index("last_page_len", last, rows, device=False)
    assert indptr[0] == 0, "indptr must start at 0"
    assert bool((indptr[1:] > indptr[:-1]).all()), "every row has at least one page"
    check_index("indices", indices, int(indptr[-1]), device=True)
    assert bool(((last >= 1) & (last <= page_size)).all()), "1 <= last_page_len <= page_size"
    return rows


def check_dtypes(q_data_type: Any, kv_data_type: Any) -> None:
    assert q_data_type in (torch.float16, torch.bfloat16), f"fa2 computes in half precision, not {q_data_type}"
    assert kv_data_type in (torch.float16, torch.bfloat16)


def attend(q: torch.Tensor, kv: torch.Tensor, pages: torch.Tensor, keys: int, seen: torch.Tensor) -> torch.Tensor:
    """One row: q (queries, heads, head_dim), seen (queries, keys) bool."""
    kv_heads, head_dim = kv.shape[3:]
    held = kv[pages.long()].double()
    k, v = (held[:, half].reshape(-1, kv_heads, head_dim)[:keys] for half in (0, 1))
    group = q.shape[1] // kv_heads
    k, v = (part.repeat_interleave(group, dim=1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) / head_dim**0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


def bottom_right(queries: int, keys: int) -> torch.Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


class PagedWrapper:
    """What the paged wrappers share: workspace, page tables of the plan, checks of a run."""

    def setup(self, workspace: torch.Tensor, kv_layout: str, backend: str) -> None:
        assert workspace.dtype == torch.uint8
        assert workspace.numel() >= 128 * 2**20
        assert workspace[:: 2**16].count_nonzero() == 0, "the workspace must be zero for its first use"
        assert kv_layout == "NHD"
        assert backend == "fa2"

    def plan_tables(
        self, indptr: torch.Tensor, indices: torch.Tensor, last: torch.Tensor, shape: tuple[int, ...]
    ) -> None:
        heads, kv_heads, head_dim, page_size = shape
        assert heads % kv_heads == 0
        assert head_dim in (64, 128, 256)
        rows = check_tables(indptr, indices, last, page_size)
        self.shape, self.indptr, self.indices = shape, indptr.clone(), indices
        self.keys = [(int(indptr[i + 1] - indptr[i]) - 1) * page_size + int(last[i]) for i in range(rows)]

    def check_run(self, q: torch.Tensor, kv: torch.Tensor, out: torch.Tensor | None) -> None:
        heads, kv_heads, head_dim, page_size = self.shape
        assert q.shape[1:] == (heads, head_dim)
        assert kv.shape[1:] == (2, page_size, kv_heads, head_dim)
        assert (q.dtype, kv.dtype) == self.dtypes, "dtypes must be those of the plan"
        assert out is None or (out.shape == q.shape and out.dtype == q.dtype and out.is_contiguous())

    def pages(self, row: int) -> torch.Tensor:
        return self.indices[int(self.indptr[row]) : int(self.indptr[row + 1])]
