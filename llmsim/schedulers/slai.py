"""SLAI: decodes wait until their time-between-tokens target presses, prompts go first meanwhile.

"Optimal Scheduling Algorithms for LLM Inference: Theory and Practice" (arXiv 2508.01002), section 5, as implemented
in agrimUT/SLAI at 5098a7a, slai_scheduler.py.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from llmsim.batch import Batch
from llmsim.errors import ConfigError
from llmsim.request import NEVER
from llmsim.schedulers.base import Scheduler, at_least, finite
from llmsim.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmsim.kvcache import KVCache
    from llmsim.request import Request


@dataclass
class Slai(Scheduler):
    """Batch of up to `token_budget` tokens: critical decodes, prompts under way, new prompts, other decodes.

    A decode is critical from its last schedulable time on: end of its last batch + its class's time between
    tokens (`default_tbt_s` where it has none) - offset x mean duration of all batches so far. The offset is
    `below_memory_limit_offset` while less than `memory_limit` (a share) of the KV blocks are in use, else
    `above_memory_limit_offset`; with `fixed_offset` always the former. `order` is "fcfs" or "spf" (shortest
    prompt first); with `user_priority` spf puts requests of a priority class first. `limit_total_decodes` decodes
    a batch at most. Victims where blocks run out: the youngest paused prompt, else the decode itself.
    """

    token_budget: int = 512
    max_num_seqs: int = 128
    limit_total_decodes: int = 128
    default_tbt_s: float = 0.2
    below_memory_limit_offset: float = 5
    above_memory_limit_offset: float = 10
    memory_limit: float = 0.96
    fixed_offset: bool = False
    order: str = "spf"
    user_priority: bool = False

    def __post_init__(self) -> None:
        at_least(
            1,
            token_budget=self.token_budget,
            max_num_seqs=self.max_num_seqs,
            limit_total_decodes=self.limit_total_decodes,
        )
        if self.order not in ("fcfs", "spf"):
            raise ConfigError(f"order must be 'fcfs' or 'spf' but got {self.order!r}")
        finite(1e-6, default_tbt_s=self.default_tbt_s)
        finite(
            0,
            below_memory_limit_offset=self.below_memory_limit_offset,
            above_memory_limit_offset=self.above_memory_limit_offset,
            memory_limit=self.memory_limit,
        )

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run."""
        super().bind(kv, max_model_len)
        self._decode_queue: list[tuple[float, int, int, Request]] = []
        self._paused: deque[Request] = deque()
        self._last: Sequence[Request] = ()
        self._active = 0
        self._batches = 0
        self._busy_ns = 0
        self._last_end_ns = 0

    @property
    def resident(self) -> int:
        """Requests that hold KV."""
        return self._active

    def executed(self, batch: Batch, start_ns: int, ends_ns: Sequence[int]) -> None:
        """Note the duration for the running mean."""
        self._batches += len(ends_ns)
        self._last_end_ns = ends_ns[-1]
        self._busy_ns += ends_ns[-1] - start_ns

    def schedule(self, now: int) -> Batch:
        """Critical decodes, paused prompts in order of their last chunk, new prompts, decodes with slack."""
        self._requeue_last_batch()
        batch = Batch(now)
        queue = self._decode_queue
        while queue and queue[0][0] <= now and self._has_room(batch):
            self._decode_next(batch)
        while self._paused and self._left(batch) > 0:
            request = self._paused.popleft()
            batch.add_prefill(request, min(request.remaining_prefill, self._left(batch)))
        if self.waiting and self._left(batch) > 0:
            self._admit(batch)
        while queue and self._has_room(batch):
            self._decode_next(batch)
        self._last = [*batch.decode_list, *batch.prefills]
        return batch

    def _requeue_last_batch(self) -> None:
        """Unfinished prompts are paused; decodes get the time by which they must run again."""
        used = self.kv.used_blocks / self.kv.num_blocks
        full = not self.fixed_offset and used >= self.memory_limit
        offset = self.above_memory_limit_offset if full else self.below_memory_limit_offset
        mean_ns = self._busy_ns / self._batches if self._batches else 0.0
        for request in self._last:
            if request.finish_ns != NEVER:
                continue
            if request.remaining_prefill:
                self._paused.append(request)
                continue
            tbt_s = request.slo.tbt_s or self.default_tbt_s
            last_schedulable = self._last_end_ns + tbt_s * SECOND - offset * mean_ns
            heappush(self._decode_queue, (last_schedulable, request.arrival_ns, request.id, request))
        self._last = ()

    def _left(self, batch: Batch) -> int:
        return self.token_budget - batch.decode_tokens - batch.prefill_tokens

    def _has_room(self, batch: Batch) -> bool:
        return batch.decode_tokens < self.limit_total_decodes and self._left(batch) > 0

    def _decode_next(self, batch: Batch) -> None:
        """The most urgent decode emits a token, unless it has to give its blocks up."""
        request = heappop(self._decode_queue)[3]
        while not self.kv.free_blocks:
            victim = self._paused.pop() if self._paused else request
            self.preempt(victim, batch)
            if victim is request:
                return
        self.kv.allocate(request, request.length)
        batch.add_decode(request)

    def _admit(self, batch: Batch) -> None:
        if self.order == "spf":
            self.waiting = deque(sorted(self.waiting, key=self._urgency))
        waiting, kv = self.waiting, self.kv
        while waiting and self._left(batch) > 0:
            if self.reject_too_long(batch):
                continue
            request = waiting[0]
            if (
                not kv.can_admit(request.prefill_tokens)
                or self._active >= self.max_num_seqs
                or request in batch.preempted  # not back in the batch that threw it out
            ):
                return
            waiting.popleft()
            self._active += 1
            kv.allocate(request, request.prefill_tokens)
            self.prefilling.append(request)
            batch.add_prefill(request, min(request.prefill_tokens, self._left(batch)))

    def _urgency(self, request: Request) -> tuple[bool, int]:
        return self.user_priority and not request.slo.priority, request.prefill_tokens

    def withdraw(self, request: Request) -> None:
        """Prompts and decodes have left their own queue already when they are preempted."""
        if request.remaining_prefill:
            self.prefilling.remove(request)
        self._active -= 1

    def start_decoding(self, request: Request) -> None:
        """It joins the decode queue when the next batch is formed, with everyone else of this one."""

    def finished(self, request: Request) -> None:
        """Its blocks and its place are free."""
        super().finished(request)
        self._active -= 1
