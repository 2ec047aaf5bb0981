"""simple_chunking: chunks of prompts and rounds of decodes take turns and are never mixed.

As in sarathi-serve's ablation (agrimUT/SLAI at 5098a7a, simple_chunking_scheduler.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.schedulers.continuous import ContinuousBatching

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache


@dataclass
class SimpleChunking(ContinuousBatching):
    """With a backlog it strictly alternates one batch of `chunk_size` prompt tokens and one round of decodes.

    In its turn a prefill batch continues prompts under way, or, if there are none, admits new ones. A decode
    turn with nothing to decode passes at once; with `empty_turn_passes` false it returns an empty batch, as the
    original does, and whether the prompt goes on then depends on how the engine polls.
    """

    empty_turn_passes: bool = True

    ends_at_limit = False
    finds_prefixes = False

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start with the prefill turn."""
        super().bind(kv, max_model_len)
        self._prefill_turn = True
        self._tried_to_prefill = False

    def schedule(self, now: int) -> Batch:
        """One batch of prompts in the prefill turn if there are any to run, else all decodes."""
        batch = Batch(now)
        if self.empty_turn_passes and not self.decodes.size:
            self._prefill_turn = True
        self._tried_to_prefill = self._prefill_turn
        if self._prefill_turn:
            for request in self.prefilling:
                room = self.chunk_limit(request) - batch.prefill_tokens
                if room > 0:
                    batch.add_prefill(request, min(request.prefill_tokens - request.computed, room))
            if not batch.prefills and self.waiting:
                self._admit(batch, now)
            if batch.prefills:
                self._prefill_turn = False
                return batch
        if self.decodes.size:
            self.add_all_decodes(batch)
        self._prefill_turn = True
        return batch

    def steady_iterations(self, batch: Batch) -> int:
        """Decodes alone repeat only if the prefill turn found nothing to run."""
        return super().steady_iterations(batch) if self._tried_to_prefill and not batch.prefills else 1
