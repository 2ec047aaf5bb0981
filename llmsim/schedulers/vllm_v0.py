"""vLLM v0: prompts first, whole, in batches of their own; decodes wait meanwhile.

As in vLLM before its v1 engine and sarathi-serve's baseline (agrimUT/SLAI at 5098a7a, vllm_scheduler.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.errors import ConfigError
from llmsim.schedulers.base import Scheduler, at_least

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache


@dataclass
class VllmV0(Scheduler):
    """Prefill-prioritised: whatever can be admitted runs as a prefill-only batch, else all decodes run.

    Every new prompt stalls all decodes. Recompute preemption of the youngest. `max_num_batched_tokens` (None =
    max_model_len) bounds the prompts of a batch and may not be below max_model_len, or a long prompt would
    block the queue for ever.
    """

    max_num_batched_tokens: int | None = None
    max_num_seqs: int = 128

    finds_prefixes = True

    def __post_init__(self) -> None:
        at_least(1, max_num_seqs=self.max_num_seqs)

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Raises ConfigError if max_num_batched_tokens is below max_model_len."""
        super().bind(kv, max_model_len)
        self._budget = max_model_len if self.max_num_batched_tokens is None else self.max_num_batched_tokens
        if self._budget < max_model_len:
            raise ConfigError(
                f"[scheduler vllm_v0] max_num_batched_tokens must be at least max_model_len={max_model_len} but got "
                f"{self._budget}: a longer prompt could never run; raise it or lower engine.max_model_len"
            )

    def schedule(self, now: int) -> Batch:
        """A batch of new prompts if any can be admitted, else one token for every decode."""
        batch = Batch(now)
        if self.waiting:
            self._admit(batch)
        # A batch that only rejected prompts goes on to decode; the original returned it empty and lost them.
        if not batch.prefills and self.decodes.size:
            self.add_all_decodes(batch)
        return batch

    def _admit(self, batch: Batch) -> None:
        waiting, kv = self.waiting, self.kv
        while waiting:
            if self.reject_too_long(batch):
                continue
            request = waiting[0]
            tokens = request.prefill_tokens
            hit = kv.match(request)
            if (
                not kv.can_admit(tokens, hit)
                or batch.prefill_tokens + tokens - hit.blocks * kv.block_size > self._budget
                or self.resident >= self.max_num_seqs
            ):
                return
            waiting.popleft()
            self.adopt(request, hit, batch)
            kv.allocate(request, tokens)
            self.start_prefill(request)
            batch.add_prefill(request, tokens - request.computed)

    def steady_iterations(self, batch: Batch) -> int:
        """Decodes alone repeat until one could lack a block: admission failed now and memory only shrinks."""
        if batch.prefills or batch.preempted or (self.waiting and self.kv.may_find_more(self.waiting[0])):
            return 1
        return self.growth_bound(reserve=1)

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Not if it queues behind a prompt that does not fit, or all places are taken."""
        return not self.waiting and self.resident < self.max_num_seqs
