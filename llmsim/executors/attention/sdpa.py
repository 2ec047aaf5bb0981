"""Paged attention with torch's scaled_dot_product_attention, row by row: right on any device, quick on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

from llmsim.executors.attention.base import AttentionBackend

if TYPE_CHECKING:
    from llmsim.executors.step import Step


class SdpaBackend(AttentionBackend):
    """Gathers the pages of each row and attends to them: one call a row and layer, so its time adds up over rows."""

    name = "sdpa"

    def plan(self, step: Step) -> None:
        """Row bounds as ints, pages and masks as tensors."""
        slots = torch.from_numpy(step.slots).to(self.device)
        self._page, self._offset = slots // self.page_size, slots % self.page_size
        pages = torch.from_numpy(step.pages).to(self.device)
        bounds, starts = step.page_starts.tolist(), step.query_starts.tolist()
        keys, hidden = step.keys.tolist(), step.hidden.tolist()
        self._rows = [
            (
                starts[i],
                starts[i + 1],
                pages[bounds[i] : bounds[i + 1]],
                keys[i],
                self._mask(starts[i + 1] - starts[i], keys[i], hidden[i]),
            )
            for i in range(step.rows)
        ]

    def _mask(self, queries: int, keys: int, hidden: int) -> torch.Tensor | None:
        """What is added to the scores, (queries, keys): bottom-right causal, nothing on hidden keys. None: see all."""
        if queries == 1 and not hidden:
            return None
        seen = torch.ones(queries, keys, dtype=torch.bool, device=self.device).tril(keys - hidden - queries)
        zeros = torch.zeros(queries, keys, dtype=self.dtype, device=self.device)
        return zeros.masked_fill_(seen.logical_not_(), float("-inf"))

    def run(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """As in AttentionBackend."""
        cache = self.kv[layer]
        cache[self._page, 0, self._offset] = k
        cache[self._page, 1, self._offset] = v
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        kv_heads, head_dim = k.shape[1], k.shape[2]
        group = q.shape[1] // kv_heads
        for first, last, pages, keys, mask in self._rows:
            held = cache.index_select(0, pages)
            # (kv_heads, keys, head_dim); a reshape of each half copies it, which the kernel wants anyway
            row_k = held[:, 0].reshape(-1, kv_heads, head_dim)[:keys].transpose(0, 1)
            row_v = held[:, 1].reshape(-1, kv_heads, head_dim)[:keys].transpose(0, 1)
            row_q = q[first:last].reshape(-1, kv_heads, group, head_dim)
            if mask is None:  # one query that sees everything: the heads of a group are queries of their KV head
                out[first] = scaled_dot_product_attention(row_q[0], row_k, row_v).reshape(-1, head_dim)
                continue
            heads = scaled_dot_product_attention(  # batch = group, so that K and V are shared without a copy
                row_q.permute(2, 1, 0, 3), row_k.expand(group, -1, -1, -1), row_v.expand(group, -1, -1, -1), mask
            )
            out[first:last] = heads.permute(2, 1, 0, 3).reshape(last - first, -1, head_dim)
        return out
