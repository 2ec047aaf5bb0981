"""The nouns that everything else speaks of: requests, batches, the KV cache, the clock. Read these first.

request (a prompt and its progress) · content (what its tokens are, as far as others share them) · batch (what one
iteration runs, and the sums that price it) · decodes (all running decodes as sums) · kvcache (block accounting) · clock
(what is added to SimPy) · ramp (when the iterations of a run end) · progress (a replica in the middle of a run) ·
lifetimes (when replicas come and go) · prefix/ (vLLM's prefix cache) · contract/ (what holds a user's own policy to the
rules)
"""

from __future__ import annotations

from llmsim.core.batch import Batch, Work
from llmsim.core.decodes import DecodeSet
from llmsim.core.kvcache import KVCache, PagedKVCache
from llmsim.core.request import NEVER, Request, SloClass

__all__ = [
    "NEVER",
    "Batch",
    "DecodeSet",
    "KVCache",
    "PagedKVCache",
    "Request",
    "SloClass",
    "Work",
]
