"""Naive batching of the LLM Scheduler Benchmark Suite: wait for a full batch or a timeout, then run it to its end.

As llm-scheduler at 0255878, naive_scheduler.py, with a Hugging Face `generate` call as the engine: one rectangular
batch, padded to its longest prompt, that is over when its last sequence is; all answers come then. There is no
streaming, so a client's first token comes with its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.schedulers.base import Scheduler, at_least, finite
from llmsim.units import MILLISECOND, to_ns

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache

SHORTEST_WAIT_NS = 10 * MILLISECOND
"""The original never waits less than this for the next request of a batch."""


@dataclass
class Naive(Scheduler):
    """Batches of `batch_size` requests in order of arrival, or of those there are `timeout_s` after the last batch.

    The timer starts when a batch ends and is not restarted by an arrival: after an idle time longer than it, the
    first request runs alone at once. Sequences that are done run on as padding. The original knows no memory limit;
    here a batch takes as many prompts as the cache admits, and the youngest is preempted if decodes outgrow it.
    """

    batch_size: int = 4
    timeout_s: float = 0.5
    answers_together = True
    ends_at_limit = False

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size)
        finite(most=1e9, timeout_s=self.timeout_s)

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run: the timer runs from 0."""
        super().bind(kv, max_model_len)
        self._free_since_ns = 0
        self._timeout_ns = to_ns(self.timeout_s)
        self._rows = self._longest = 0

    @property
    def target(self) -> int:
        """Requests of a full batch."""
        return self.batch_size

    def schedule(self, now: int) -> Batch:
        """The next token of everyone in the batch under way, else a new batch if it is full or overdue."""
        batch = Batch(now)
        if self.decodes.size:
            self.add_all_decodes(batch)
        if self.decodes.size:
            self._pad(batch)
            return batch
        if self._rows:
            self._rows = 0
            self.batch_over()
        if self.waiting and (len(self.waiting) >= self.target or now >= self._due(now)):
            self._form(batch)
        return batch

    def batch_over(self) -> None:
        """Hook: the last request of a batch is done."""

    def _due(self, now: int) -> int:
        """When a batch that is not full runs nevertheless."""
        last = max(self._free_since_ns, self.waiting[-1].arrival_ns)
        deadline = self._free_since_ns + self._timeout_ns
        return max(deadline, last + SHORTEST_WAIT_NS) if last < deadline else now

    def wake_at(self, now: int) -> int | None:
        """The timeout of the batch that is being collected."""
        if not self.waiting:
            return None
        due = self._due(now)
        return due if due > now else None

    def _form(self, batch: Batch) -> None:
        while self.waiting and len(self.prefilling) < self.target:
            if self.reject_too_long(batch):
                continue
            request = self.waiting[0]
            if not self.kv.can_admit(request.prefill_tokens) or request in batch.preempted:
                break
            self.waiting.popleft()
            self.kv.allocate(request, request.prefill_tokens)
            self.prefilling.append(request)
            batch.add_prefill(request, request.prefill_tokens)
        if batch.prefills:
            self._rows, self._longest = len(batch.prefills), max(batch.chunks)
            batch.pad_prefills()

    def _pad(self, batch: Batch) -> None:
        """The GPU runs the whole rectangle: every row of the batch at the full width."""
        self._rows -= len(batch.preempted)
        anyone = next(iter(self.decodes.members))
        width = self._longest + self.decodes.length(anyone) - anyone.prefill_tokens
        batch.pad_decodes(self._rows - self.decodes.size, self._rows * width - self.decodes.context)

    def executed(self, batch: Batch, start_ns: int, ends_ns: Sequence[int]) -> None:
        """The timer starts anew when a batch ends."""
        self._free_since_ns = ends_ns[-1]

    def steady_iterations(self, batch: Batch) -> int:
        """Nobody enters before all are done."""
        return 1 if batch.prefill_seqs or batch.preempted or not self.decodes.size else self.growth_bound(reserve=1)

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Never: they wait for the next batch."""
        return False
