"""Sarathi-Serve: stall-free batching with chunked prefill, in arrival or shortest-prompt order.

As in sarathi-serve's OSDI'24 branch and its fork SLAI (agrimUT/SLAI at 5098a7a), which added `order="spf"`.
"""

from __future__ import annotations

from bisect import insort_left, insort_right
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError
from llmsim.schedulers.base import at_least
from llmsim.schedulers.continuous import ContinuousBatching

if TYPE_CHECKING:
    from llmsim.core.batch import Batch
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request


def sorted_length(request: Request) -> int:
    """Tokens to prefill when the queue was last sorted."""
    return request.rank


def chunk_schedule(low: int, high: int, stages: int) -> list[int]:
    """`stages` chunk sizes evenly spaced from `high` down to `low` tokens, in multiples of min(32, low)."""
    step = min(32, low)
    spaced = [low + (high - low) * i // (stages - 1) if stages > 1 else high for i in range(stages)]
    return [round(tokens / step) * step for tokens in reversed(spaced)]


@dataclass
class Sarathi(ContinuousBatching):
    """Chunked prefill under a token budget of `chunk_size` tokens an iteration.

    `order` is "fcfs" or "spf" (shortest prompt first; preempted requests are sorted in too, and long prompts
    may starve: both as in the original). With `dynamic_chunks` a prompt's chunks shrink as it proceeds, from
    `chunk_high` to `chunk_low` tokens in `chunk_stages` stages over `chunk_max_tokens` tokens; where decodes
    alone exceed a late stage's chunk the original goes negative, here the prompt waits.
    """

    steady_hooks = True  # lengths decide the order, and progress the chunk

    order: str = "fcfs"
    dynamic_chunks: bool = False
    chunk_low: int = 128
    chunk_high: int = 2048
    chunk_max_tokens: int = 131072
    chunk_stages: int = 16
    _chunks: list[int] = field(default_factory=list, init=False, repr=False)
    _stage_tokens: int = field(default=0, init=False, repr=False)

    ends_at_limit = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("fcfs", "spf"):
            raise ConfigError(f"order must be 'fcfs' or 'spf' but got {self.order!r}")
        at_least(1, chunk_low=self.chunk_low, chunk_stages=self.chunk_stages, chunk_max_tokens=self.chunk_max_tokens)
        at_least(self.chunk_low, chunk_high=self.chunk_high)
        if self.dynamic_chunks:
            self._chunks = chunk_schedule(self.chunk_low, self.chunk_high, self.chunk_stages)
            self._stage_tokens = -(-self.chunk_max_tokens // self.chunk_stages)

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run."""
        super().bind(kv, max_model_len)
        # A subclass may override either hook again.
        self.fixed_chunk = not self._chunks and type(self).chunk_limit is Sarathi.chunk_limit
        self.keeps_order = self.order == "fcfs" and type(self).order_waiting is Sarathi.order_waiting
        self._victims: list[tuple[int, Request]] = []

    def chunk_limit(self, request: Request) -> int:
        """The chunk of the prompt's stage; prompts past the table keep its last, smallest chunk."""
        if not self._chunks:
            return self.chunk_size
        return self._chunks[min(request.computed // self._stage_tokens, len(self._chunks) - 1)]

    def add(self, request: Request) -> None:
        """Arrivals go last among equals, so the queue is what a stable sort at every batch would give."""
        if self.order == "spf":
            request.rank = request.prefill_tokens
            insort_right(self.waiting, request, key=sorted_length)
        else:
            self.waiting.append(request)

    def preempt(self, request: Request, batch: Batch) -> None:
        """In spf order the victim is sorted in, first among equals.

        The original sorts victims by their old prompt in the batch that preempts them, and by the longer one
        they have to recompute from the next batch on.
        """
        super().preempt(request, batch)
        if self.order == "spf":
            insort_left(self.waiting, self.waiting.popleft(), key=sorted_length)
            self._victims.append((batch.formed_ns, request))

    def order_waiting(self, now: int) -> None:
        """Keep spf order; the queue is sorted but for victims of earlier batches."""
        if self._victims and self._victims[0][0] < now:
            for _, request in self._victims:
                request.rank = request.prefill_tokens
            self._victims.clear()
            self.waiting = deque(sorted(self.waiting, key=sorted_length))
