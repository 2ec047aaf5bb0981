"""SLAI: decodes wait until their time-between-tokens target presses, prompts go first meanwhile.

"Optimal Scheduling Algorithms for LLM Inference: Theory and Practice" (arXiv 2508.01002), section 5, as implemented
in agrimUT/SLAI at 5098a7a, slai_scheduler.py.
"""

from __future__ import annotations

from bisect import insort_left, insort_right
from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.errors import ConfigError
from llmsim.schedulers.base import UNBOUNDED, Scheduler, at_least, by_arrival, finite
from llmsim.schedulers.cohorts import Cohorts, Steps
from llmsim.units import MICROSECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request
    from llmsim.schedulers.cohorts import Cohort


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
    ends_at_limit = False

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
        self._steps = Steps()
        self._decodes = self.decodes = Cohorts(kv.block_size, self._steps, [])
        self._ran: list[Cohort] = []  # in the last batch
        self._new_decodes: list[Request] = []  # their prompts were completed by the last batch
        self._paused: deque[Request] = deque()
        self._last_prompts: Sequence[Request] = ()
        self._active = 0
        self._batches = 0
        self._busy_ns = 0
        self._last_end_ns = 0

    @property
    def resident(self) -> int:
        """Requests that hold KV."""
        return self._active

    def add(self, request: Request) -> None:
        """Arrivals go last among equals, so the queue is what a stable sort at every batch would give."""
        if self.order == "spf":
            insort_right(self.waiting, request, key=self._urgency)
        else:
            self.waiting.append(request)

    def preempt(self, request: Request, batch: Batch) -> None:
        """In spf order the victim is sorted in, first among equals."""
        super().preempt(request, batch)
        if self.order == "spf":
            insort_left(self.waiting, self.waiting.popleft(), key=self._urgency)

    def _urgency(self, request: Request) -> tuple[bool, int]:
        return self.user_priority and not request.slo.priority, request.prefill_tokens

    def executed(self, batch: Batch, start_ns: int, ends_ns: Sequence[int]) -> None:
        """Note the duration for the running mean."""
        self._batches += len(ends_ns)
        self._last_end_ns = ends_ns[-1]
        self._busy_ns += ends_ns[-1] - start_ns

    def schedule(self, now: int) -> Batch:
        """Critical decodes, paused prompts in order of their last chunk, new prompts, decodes with slack."""
        self._requeue_last_batch()
        batch = Batch(now)
        at = self._run_decodes(batch, 0, now)
        while self._paused and self._left(batch) > 0:
            request = self._paused.popleft()
            batch.add_prefill(request, min(request.remaining_prefill, self._left(batch)))
        if self.waiting and self._left(batch) > 0:
            self._admit(batch)
        if at < len(self._decodes.cohorts):
            self._run_decodes(batch, at, inf)
        if len(self._ran) > 1:
            batch.decodes = Cohorts(self.kv.block_size, self._steps, self._ran)
        self._last_prompts = batch.prefills
        return batch

    def _requeue_last_batch(self) -> None:
        """Unfinished prompts are paused; decodes get the time by which they must run again."""
        for request in self._last_prompts:
            if request.remaining_prefill:
                self._paused.append(request)
        self._last_prompts = ()
        together = self._decodes.meet(self._ran)
        for request in self._new_decodes:
            self._decodes.enter(request, request.slo.tbt_s or self.default_tbt_s, together)
        self._ran, self._new_decodes = [], []
        for tbt_s, cohort in together.items():
            cohort.due_ns = self._due_ns(tbt_s)
        self._decodes.sort()

    def _due_ns(self, tbt_s: float) -> float:
        """Last schedulable time of decodes that ran in the last batch."""
        used = self.kv.used_blocks / self.kv.num_blocks
        full = not self.fixed_offset and used >= self.memory_limit
        offset = self.above_memory_limit_offset if full else self.below_memory_limit_offset
        mean_ns = self._busy_ns / self._batches if self._batches else 0.0
        return self._last_end_ns + tbt_s * SECOND - offset * mean_ns

    def _left(self, batch: Batch) -> int:
        return self.token_budget - batch.decode_tokens - batch.prefill_tokens

    def _run_decodes(self, batch: Batch, at: int, until_ns: float) -> int:
        """The cohorts from the `at`-th on that are due by then emit a token; returns how far it came."""
        kv, cohorts = self.kv, self._decodes.cohorts
        count = len(cohorts)
        while at < count and cohorts[at].due_ns <= until_ns:
            room = min(self.limit_total_decodes - batch.decode_tokens, self._left(batch))
            if room <= 0:
                break
            first = cohorts[at]
            end = at + 1
            while end < count and cohorts[end].due_ns == first.due_ns:
                end += 1
            running, size, needed = [first], first.size, first.blocks_needed()
            for cohort in cohorts[at + 1 : end]:
                running.append(cohort)
                size += cohort.size
                needed += cohort.blocks_needed()
            if size <= room and needed < kv.free_blocks:  # a free block before every decode, needed or not
                kv.free_blocks -= needed
            else:
                running = self._run_one_by_one(running, room, batch)
            for cohort in running:
                batch.add_decodes(cohort)
            self._ran += running
            at = end
        return at

    def _run_one_by_one(self, tied: list[Cohort], room: int, batch: Batch) -> list[Cohort]:
        """Decodes in order of arrival, as many as there is room for; returns the cohorts of those that run."""
        order = [(*by_arrival(request), request, cohort) for cohort in tied for request in cohort.members]
        order.sort()  # ids differ, so requests are never compared
        for at, (_, _, request, cohort) in enumerate(order):
            if not room:
                return self._decodes.cut(tied, {entry[1] for entry in order[at:]})
            if self._make_room(request, batch):
                self.kv.take(cohort.needs_block(request))
                room -= 1
        return [cohort for cohort in tied if cohort.size]

    def _make_room(self, request: Request, batch: Batch) -> bool:
        """Whether there is a free block for the decode once it or prompts have given theirs up; needed or not."""
        while not self.kv.free_blocks:
            victim = self._paused.pop() if self._paused else request
            self.preempt(victim, batch)
            if victim is request:
                return False
        return True

    def _admit(self, batch: Batch) -> None:
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

    def steady_iterations(self, batch: Batch) -> int:
        """A batch of all decodes repeats, alone or with a prompt that takes the rest of the budget.

        Alone until one could lack a block: who was not admitted now is not later, as memory only shrinks. With a
        prompt as long as all are sure to be critical, so that they go first again.
        """
        size = batch.decode_tokens
        if batch.preempted or self._paused or len(self._ran) < len(self._decodes.cohorts):
            return 1
        kv = self.kv
        steady = 1 + max(0, (kv.free_blocks - 1) // size) * kv.block_size if size else UNBOUNDED
        if not batch.prefill_seqs:  # who waits was refused; but if nobody was asked, critical decodes have to stay so
            asked = not self.waiting or self._left(batch) > 0
            return steady if asked else min(steady, self._surely_critical())
        chunks = batch.prefills[0].remaining_prefill // batch.prefill_tokens
        if batch.prefill_seqs > 1 or chunks < 2 or self._left(batch) > 0:
            return 1
        return min(chunks, steady, self._surely_critical()) if size else chunks

    def _surely_critical(self) -> int:
        """Iterations in a row, this one in, that begin with all decodes critical however long each takes.

        After n iterations the mean is at least busy / (batches + n); a microsecond is kept for rounding.
        """
        offset = self.below_memory_limit_offset
        if not self.fixed_offset:
            offset = min(offset, self.above_memory_limit_offset)
        slack_ns = max(cohort.tbt_s for cohort in self._ran) * SECOND + MICROSECOND
        return 1 + max(0, int(offset * self._busy_ns / slack_ns) - self._batches)

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Not if a prompt takes the budget, or all places are taken, or it queues behind one that does not fit."""
        if batch.prefill_seqs or self._active >= self.max_num_seqs:
            return False
        return not (self.waiting and self.order == "fcfs")

    def withdraw(self, request: Request) -> None:
        """Paused prompts have left their queue already when they are preempted."""
        if request.remaining_prefill:
            self.prefilling.remove(request)
        else:
            self.decodes.leave(request)
        self._active -= 1

    def start_decoding(self, request: Request) -> None:
        """It joins a cohort when the next batch is formed, with everyone else of this one."""
        self._new_decodes.append(request)

    def finished(self, request: Request) -> None:
        """Its blocks and its place are free."""
        super().finished(request)
        self._active -= 1
