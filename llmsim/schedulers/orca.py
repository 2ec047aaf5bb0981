"""Orca: iteration-level batching with whole prompts and the KV of the longest possible sequence reserved.

As in sarathi-serve's baseline (agrimUT/SLAI at 5098a7a, orca_scheduler.py); Orca's own kernels are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmsim.core.batch import Batch
from llmsim.schedulers.base import UNBOUNDED, Scheduler, at_least


@dataclass
class Orca(Scheduler):
    """Every iteration decodes all residents and admits waiting prompts whole, in the same batch.

    A request reserves ceil(max_model_len / block_size) blocks, without watermark, and never grows: no
    preemption. `max_num_seqs` requests at most; no limit on tokens.
    """

    max_num_seqs: int = 8
    paged = False
    ends_at_limit = False

    def __post_init__(self) -> None:
        at_least(1, max_num_seqs=self.max_num_seqs)

    def schedule(self, now: int) -> Batch:
        """All decodes, then whole prompts in arrival order while a reservation and a place are free."""
        batch = Batch(now)
        if self.decodes.size:
            batch.add_decodes(self.decodes)
        self.admit_whole_prompts(batch)
        return batch

    def admit_whole_prompts(self, batch: Batch) -> None:
        """Admit from the head of `waiting` until a reservation fails or `max_num_seqs` are resident."""
        waiting, kv = self.waiting, self.kv
        reservation = kv.blocks_for(self.max_model_len)
        while waiting:
            if self.reject_too_long(batch):
                continue
            if kv.free_blocks < reservation or self.resident >= self.max_num_seqs:
                return
            request = waiting.popleft()
            kv.allocate(request, self.max_model_len)
            self.prefilling.append(request)
            batch.add_prefill(request, request.prefill_tokens)

    def steady_iterations(self, batch: Batch) -> int:
        """Reservations never grow, and nobody enters before someone finishes."""
        return 1 if batch.prefills else UNBOUNDED

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Not if it queues behind a prompt without a reservation, or all places are taken."""
        return not self.waiting and self.resident < self.max_num_seqs
