"""The four rules of Dai et al. (arXiv 2504.07347), as their theory defines them: a token budget and a cap on residents.

They share names with systems that do more: "FasterTransformer" here decodes first and never mixes (the real one serves
batches to their end), "Orca" cuts prompts to the budget (the real one admits whole prompts), "vLLM" is prefill-first
without chunks mixed in. Each is a few lines on llmsim's Scheduler, so this file is also an example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim import Batch, Scheduler
from llmsim.schedulers.base import by_arrival

if TYPE_CHECKING:
    from llmsim import KVCache, Request


@dataclass
class _Budgeted(Scheduler):
    """Prompts enter in order of arrival while fewer than `max_num_seqs` are resident; batches hold `budget` tokens."""

    budget: int = 128
    max_num_seqs: int = 100

    def room(self, batch: Batch) -> int:
        """Tokens that the batch may still take."""
        return self.budget - batch.prefill_tokens - batch.decode_tokens

    def add_prompts(self, batch: Batch) -> None:
        """Prompts under way, then new ones, cut to what is left of the budget."""
        for request in self.prefilling:
            if self.room(batch) > 0:
                batch.add_prefill(request, min(request.remaining_prefill, self.room(batch)))
        self.add_new_prompts(batch)

    def add_new_prompts(self, batch: Batch) -> None:
        """New prompts while a place and tokens of the budget are free."""
        while self.waiting and self.room(batch) > 0 and self.resident < self.max_num_seqs:
            if self.reject_too_long(batch):
                continue
            request = self.waiting[0]
            if request in batch.preempted or not self.kv.can_admit(request.prefill_tokens):
                return
            self.waiting.popleft()
            self.kv.allocate(request, request.prefill_tokens)
            self.start_prefill(request)
            batch.add_prefill(request, min(request.remaining_prefill, self.room(batch)))


@dataclass
class Sarathi(_Budgeted):
    """Decodes first, then prompts in what is left of the budget: work-conserving."""

    def schedule(self, now: int) -> Batch:
        """Decodes and prompts in one batch."""
        batch = Batch(now)
        if self.decodes.size:
            self.add_all_decodes(batch)
        self.add_prompts(batch)
        return batch


@dataclass
class Orca(_Budgeted):
    """Whoever came first goes first, prompt or decode, until the budget is full: work-conserving.

    It picks decodes one by one, so it keeps them in a list of its own; memory must be ample (it never preempts).
    """

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run."""
        super().bind(kv, max_model_len)
        self._decoding: list[Request] = []

    @property
    def resident(self) -> int:
        """Requests that hold KV."""
        return len(self.prefilling) + len(self._decoding)

    def schedule(self, now: int) -> Batch:
        """Residents in order of arrival, then new prompts."""
        batch = Batch(now)
        for request in sorted([*self.prefilling, *self._decoding], key=by_arrival):
            if self.room(batch) == 0:
                return batch
            if request.remaining_prefill:
                batch.add_prefill(request, min(request.remaining_prefill, self.room(batch)))
            else:
                self.kv.allocate(request, request.length)
                batch.add_decode(request)
        self.add_new_prompts(batch)
        return batch

    def start_decoding(self, request: Request) -> None:
        """It decodes from the next batch on."""
        self._decoding.append(request)

    def finished(self, request: Request) -> None:
        """It leaves the list."""
        super().finished(request)
        if request in self._decoding:
            self._decoding.remove(request)


@dataclass
class PrefillFirst(_Budgeted):
    """Dai's vanilla vLLM: prompts alone as long as one is there and may enter, else decodes alone."""

    def schedule(self, now: int) -> Batch:
        """A batch of prompts, or one of decodes; never both."""
        batch = Batch(now)
        self.add_prompts(batch)
        if not batch.prefills and self.decodes.size:
            self.add_all_decodes(batch)
        return batch


@dataclass
class DecodeFirst(_Budgeted):
    """Dai's FasterTransformer: decodes alone as long as there is one, else prompts alone."""

    def schedule(self, now: int) -> Batch:
        """A batch of decodes, or one of prompts; never both."""
        batch = Batch(now)
        if self.decodes.size:
            self.add_all_decodes(batch)
        else:
            self.add_prompts(batch)
        return batch
