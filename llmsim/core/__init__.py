"""The nouns that everything else speaks of: requests, batches, the KV cache, the clock. Read these first.

request (a prompt and its progress) · batch (what one iteration runs, and the sums that price it) · decodes (all running
decodes as sums) · kvcache (block accounting) · clock (the one thing added to SimPy) · ramp (when the iterations of a
run end) · progress (a replica in the middle of a run) · lifetimes (when replicas come and go)
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
