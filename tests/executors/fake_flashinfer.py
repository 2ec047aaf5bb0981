"""A stand-in for the package flashinfer: its signatures, its rules for arguments, and plain float64 arithmetic.

Arguments are checked by what the real one documents or asserts; see flashinfer_rules. `calls` holds (name, args,
kwargs) of every call.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.executors.flashinfer_rules import (
    DECODE_PLAN_KEYWORDS,
    PagedWrapper,
    attend,
    bottom_right,
    check_dtypes,
    check_index,
    device_memory,
    is_on_device,
)

calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []


def reset() -> None:
    """Forget calls and device memory."""
    calls.clear()
    device_memory.clear()


class BatchDecodeWithPagedKVCacheWrapper(PagedWrapper):
    """One query a row."""

    def __init__(
        self,
        float_workspace_buffer: torch.Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        use_tensor_cores: bool = False,
        paged_kv_indptr_buffer: torch.Tensor | None = None,
        paged_kv_indices_buffer: torch.Tensor | None = None,
        paged_kv_last_page_len_buffer: torch.Tensor | None = None,
        backend: str = "auto",
        jit_args: list[Any] | None = None,
    ) -> None:
        given = {"use_tensor_cores": use_tensor_cores, "backend": backend}
        calls.append(("BatchDecodeWithPagedKVCacheWrapper", (float_workspace_buffer, kv_layout), given))
        assert use_tensor_cores
        self.setup(float_workspace_buffer, kv_layout, backend)

    def plan(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        *deprecated_positional_args: Any,
        **kwargs: Any,
    ) -> None:
        shape = (num_qo_heads, num_kv_heads, head_dim, page_size)
        calls.append(("BatchDecodeWithPagedKVCacheWrapper.plan", (indptr, indices, last_page_len, *shape), kwargs))
        assert not deprecated_positional_args, "after page_size by keyword"
        assert kwargs.keys() <= DECODE_PLAN_KEYWORDS, f"unknown keywords {kwargs.keys() - DECODE_PLAN_KEYWORDS}"
        self.dtypes = (kwargs.get("q_data_type", torch.float16), kwargs.get("kv_data_type"))
        check_dtypes(*self.dtypes)
        self.plan_tables(indptr, indices, last_page_len, shape)

    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: torch.Tensor,
        *args: Any,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        return_lse: bool = False,
        enable_pdl: bool | None = None,
        window_left: int | None = None,
    ) -> torch.Tensor:
        calls.append(("BatchDecodeWithPagedKVCacheWrapper.run", (q, paged_kv_cache), {"out": out}))
        assert len(q) == len(self.keys)
        self.check_run(q, paged_kv_cache, out)
        out = torch.empty_like(q) if out is None else out
        for row, keys in enumerate(self.keys):
            one = attend(q[row : row + 1], paged_kv_cache, self.pages(row), keys, bottom_right(1, keys))
            out[row : row + 1] = one.to(out.dtype)
        return out


class BatchPrefillWithPagedKVCacheWrapper(PagedWrapper):
    """Any number of queries a row, causal or with a mask."""

    def __init__(
        self,
        float_workspace_buffer: torch.Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        qo_indptr_buf: torch.Tensor | None = None,
        paged_kv_indptr_buf: torch.Tensor | None = None,
        paged_kv_indices_buf: torch.Tensor | None = None,
        paged_kv_last_page_len_buf: torch.Tensor | None = None,
        custom_mask_buf: torch.Tensor | None = None,
        mask_indptr_buf: torch.Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        name = "BatchPrefillWithPagedKVCacheWrapper"
        calls.append((name, (float_workspace_buffer, kv_layout), {"backend": backend}))
        self.setup(float_workspace_buffer, kv_layout, backend)

    def plan(
        self,
        qo_indptr: torch.Tensor,
        paged_kv_indptr: torch.Tensor,
        paged_kv_indices: torch.Tensor,
        paged_kv_last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        head_dim_vo: int | None = None,
        custom_mask: torch.Tensor | None = None,
        packed_custom_mask: torch.Tensor | None = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        sm_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
    ) -> None:
        shape = (num_qo_heads, num_kv_heads, head_dim_qk, page_size)
        tables = (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len)
        given = {"custom_mask": custom_mask, "causal": causal, "q_data_type": q_data_type, "kv_data_type": kv_data_type}
        calls.append(("BatchPrefillWithPagedKVCacheWrapper.plan", (*tables, *shape), given))
        self.dtypes = (q_data_type, kv_data_type)
        check_dtypes(*self.dtypes)
        self.plan_tables(paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, shape)
        check_index("qo_indptr", qo_indptr, len(self.keys) + 1, device=False)
        assert qo_indptr[0] == 0
        self.starts = qo_indptr.tolist()
        sizes = [(b - a, keys) for a, b, keys in zip(self.starts, self.starts[1:], self.keys, strict=False)]
        assert all(0 < queries <= keys for queries, keys in sizes)
        if custom_mask is None:
            assert causal
            self.seen = [bottom_right(*size) for size in sizes]
            return
        assert is_on_device(custom_mask)
        assert custom_mask.dtype == torch.bool
        assert custom_mask.shape == (sum(queries * keys for queries, keys in sizes),)
        parts = custom_mask.split([queries * keys for queries, keys in sizes])
        self.seen = [part.view(size) for part, size in zip(parts, sizes, strict=True)]

    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: torch.Tensor,
        *args: Any,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        calls.append(("BatchPrefillWithPagedKVCacheWrapper.run", (q, paged_kv_cache), {"out": out}))
        assert len(q) == self.starts[-1]
        self.check_run(q, paged_kv_cache, out)
        out = torch.empty_like(q) if out is None else out
        for row, (first, last) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            seen = self.seen[row]
            part = attend(q[first:last], paged_kv_cache, self.pages(row), self.keys[row], seen)
            out[first:last] = part.to(out.dtype)
        return out


class BatchAttention(PagedWrapper):
    """Decodes and prompts in one launch; no mask but the causal one."""

    def __init__(self, kv_layout: str = "NHD", device: str = "cuda") -> None:
        calls.append(("BatchAttention", (kv_layout,), {"device": device}))
        assert kv_layout == "NHD"
        torch.device(device)

    def plan(
        self,
        qo_indptr: torch.Tensor,
        kv_indptr: torch.Tensor,
        kv_indices: torch.Tensor,
        kv_len_arr: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        head_dim_vo: int,
        page_size: int,
        causal: bool = False,
        sm_scale: float | None = None,
        logits_soft_cap: float | None = None,
        q_data_type: torch.dtype = torch.bfloat16,
        kv_data_type: torch.dtype = torch.bfloat16,
        use_profiler: bool = False,
    ) -> None:
        shape = (num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, page_size)
        given = {"causal": causal, "q_data_type": q_data_type, "kv_data_type": kv_data_type}
        calls.append(("BatchAttention.plan", (qo_indptr, kv_indptr, kv_indices, kv_len_arr, *shape), given))
        assert head_dim_qk == head_dim_vo
        assert causal
        self.dtypes = (q_data_type, kv_data_type)
        check_dtypes(*self.dtypes)
        last = (kv_len_arr - (kv_indptr[1:] - kv_indptr[:-1] - 1) * page_size).to(torch.int32)
        self.plan_tables(kv_indptr, kv_indices, last, (num_qo_heads, num_kv_heads, head_dim_qk, page_size))
        check_index("qo_indptr", qo_indptr, len(self.keys) + 1, device=False)
        check_index("kv_len_arr", kv_len_arr, len(self.keys), device=False)
        self.starts = qo_indptr.tolist()

    def run(
        self, q: torch.Tensor, kv_cache: torch.Tensor, out: torch.Tensor | None = None, lse: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        calls.append(("BatchAttention.run", (q, kv_cache), {"out": out}))
        assert len(q) == self.starts[-1]
        self.check_run(q, kv_cache, out)
        out = torch.empty_like(q) if out is None else out
        for row, (first, last) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            keys = self.keys[row]
            part = attend(q[first:last], kv_cache, self.pages(row), keys, bottom_right(last - first, keys))
            out[first:last] = part.to(out.dtype)
        return out, lse


def append_paged_kv_cache(
    append_key: torch.Tensor,
    append_value: torch.Tensor,
    batch_indices: torch.Tensor,
    positions: torch.Tensor,
    paged_kv_cache: torch.Tensor,
    kv_indices: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_last_page_len: torch.Tensor,
    kv_layout: str = "NHD",
) -> None:
    """Write keys and values to the pages of their rows."""
    tables = (kv_indices, kv_indptr, kv_last_page_len)
    args = (append_key, append_value, batch_indices, positions, paged_kv_cache, *tables)
    calls.append(("append_paged_kv_cache", args, {"kv_layout": kv_layout}))
    assert kv_layout == "NHD"
    page_size, kv_heads, head_dim = paged_kv_cache.shape[2:]
    tokens, rows = len(append_key), len(kv_last_page_len)
    for part in (append_key, append_value):
        assert part.shape == (tokens, kv_heads, head_dim)
        assert part.stride(-1) == 1
        assert part.dtype == paged_kv_cache.dtype
    check_index("batch_indices", batch_indices, tokens, device=True)
    check_index("positions", positions, tokens, device=True)
    check_index("kv_indptr", kv_indptr, rows + 1, device=True)
    check_index("kv_indices", kv_indices, int(kv_indptr[-1]), device=True)
    check_index("kv_last_page_len", kv_last_page_len, rows, device=True)
    at = kv_indptr.long()[batch_indices.long()] + positions // page_size
    assert bool((at < kv_indptr.long()[batch_indices.long() + 1]).all()), "a position lies behind the row's pages"
    pages, offsets = kv_indices.long()[at], positions.long() % page_size
    paged_kv_cache[pages, 0, offsets] = append_key
    paged_kv_cache[pages, 1, offsets] = append_value
