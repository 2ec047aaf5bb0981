"""RAD: whole GEMM tiles of prompt or of decodes, never mixed; throughput-optimal under the paper's assumptions.

"Optimal Scheduling Algorithms for LLM Inference: Theory and Practice" (arXiv 2508.01002), Algorithm 1. No code of the
authors' exists; what the paper assumes and a trace need not hold (prompts in multiples of the chunk, memory for
`tile` of the largest requests) is noted below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.schedulers.base import UNBOUNDED, Scheduler, at_least

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request


@dataclass
class Rad(Scheduler):
    """Decode mode if `tile` requests decode or no prompt waits; else one chunk of the oldest prompt.

    `tile` is b_col, the tokens of a tile; `chunk` is b_lcm, the prompt tokens of a prefill batch (None = tile). With
    `prefills_per_cycle` N, N prompts are prefilled and then all active requests finished before the next cycle;
    None is N = infinity. The last chunk of a prompt may be short: price it with a tiled calibration, which charges
    the whole tile. Where memory cannot hold `tile` requests, prompts are admitted under the watermark and the
    youngest is preempted when blocks run out.
    """

    tile: int = 128
    chunk: int | None = None
    prefills_per_cycle: int | None = None

    ends_at_limit = False
    finds_prefixes = True

    def __post_init__(self) -> None:
        given = {"chunk": self.chunk, "prefills_per_cycle": self.prefills_per_cycle}
        at_least(1, tile=self.tile, **{name: value for name, value in given.items() if value is not None})

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run, and its first cycle."""
        super().bind(kv, max_model_len)
        self._chunk = self.chunk or self.tile
        self._prefills = 0

    def schedule(self, now: int) -> Batch:
        """One chunk of the oldest prompt, or one token of every decode."""
        batch = Batch(now)
        if not self.prefilling and not self.decodes.size:
            self._prefills = 0  # everyone of the cycle is done
        request = self._oldest_prompt(batch) if self.decodes.size < self.tile else None
        if request is not None:
            batch.add_prefill(request, min(request.remaining_prefill, self._chunk))
        elif self.decodes.size:
            self.add_all_decodes(batch)
        return batch

    def _oldest_prompt(self, batch: Batch) -> Request | None:
        """The prompt under way, or the next one if it may enter: batches never hold two."""
        if self.prefilling:
            return self.prefilling[0]
        while self.waiting and self.reject_too_long(batch):
            pass
        if not self.waiting or self._cycle_is_full:
            return None
        request = self.waiting[0]
        hit = self.kv.match(request)
        if not self.kv.can_admit(request.prefill_tokens, hit):
            return None
        self.waiting.popleft()
        self.adopt(request, hit, batch)
        self.kv.allocate(request, request.prefill_tokens)
        self.start_prefill(request)
        self._prefills += 1
        return request

    @property
    def _cycle_is_full(self) -> bool:
        return self.prefills_per_cycle is not None and self._prefills >= self.prefills_per_cycle

    def steady_iterations(self, batch: Batch) -> int:
        """Whole chunks of one prompt, or decodes until one could lack a block."""
        if batch.preempted:
            return 1
        if batch.prefill_seqs:
            return max(1, batch.prefills[0].remaining_prefill // self._chunk)
        if self.waiting and self.kv.may_find_more(self.waiting[0]):
            return 1
        return self.growth_bound(reserve=1) if self.decodes.size else UNBOUNDED

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Only if a place in the tile and in the cycle is free and nobody older waits for memory."""
        if batch.prefill_seqs or self.decodes.size >= self.tile or self._cycle_is_full:
            return False
        return not self.waiting
