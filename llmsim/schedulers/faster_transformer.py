"""FasterTransformer: request-level batching; a batch is served to its end before the next is formed.

As in sarathi-serve's baseline (agrimUT/SLAI at 5098a7a, faster_transformer_scheduler.py). Theory papers use the
name for a different rule (Dai et al., arXiv 2504.07347: decode-first under a token budget).
"""

from __future__ import annotations

from dataclasses import dataclass

from llmsim.core.batch import Batch
from llmsim.schedulers.orca import Orca


@dataclass
class FasterTransformer(Orca):
    """Prompts are admitted together, whole, and only when no request is left; then all decode to the end.

    Reserves memory as Orca does. The batch shrinks as short requests finish; no padding decodes.
    """

    max_num_seqs: int = 128

    def schedule(self, now: int) -> Batch:
        """All decodes if there are any, else a new group of prompts."""
        batch = Batch(now)
        if self.decodes.size:
            batch.add_decodes(self.decodes)
        else:
            self.admit_whole_prompts(batch)
        return batch

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Never: nobody enters before all are done."""
        return False
