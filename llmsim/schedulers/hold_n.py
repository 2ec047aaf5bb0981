"""hold_n: a measuring tool, not a policy. It times one batch of N decodes and a prompt that fills the token budget.

As SLAI's probe (agrimUT/SLAI at 5098a7a, hold_n_scheduler.py), which answers t(tokens, decodes): the row of the
iteration table with `prefill_tokens` = token_budget - hold_n and `decode_tokens` = hold_n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.errors import ConfigError
from llmsim.schedulers.base import Scheduler, at_least

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request


@dataclass
class HoldN(Scheduler):
    """Prefill prompts one by one and hold them until `hold_n` are ready; then fire one batch.

    It holds one token of each, and the whole prompt of the first waiting request of exactly token_budget - hold_n
    tokens, which is kept back for it (the decodes run alone if there is none). The original stops there; here what
    is left is served to its end, one prompt at a time, then all decodes, so that the run can finish.
    """

    token_budget: int = 512
    hold_n: int = 0

    ends_at_limit = False

    def __post_init__(self) -> None:
        at_least(0, hold_n=self.hold_n)
        if self.token_budget <= self.hold_n:
            raise ConfigError(f"token_budget must be above hold_n={self.hold_n} but got {self.token_budget}")

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run: nothing held, nothing fired."""
        super().bind(kv, max_model_len)
        self._fired = False

    def schedule(self, now: int) -> Batch:
        """Fill the buffer, fire, then serve the rest."""
        batch = Batch(now)
        if not self._fired and self.decodes.size >= self.hold_n and (self.decodes.size or self._filler()):
            self._fire(batch)
        elif not self._admit(batch) and self._fired and self.decodes.size:
            self.add_all_decodes(batch)
        return batch

    def _fire(self, batch: Batch) -> None:
        self._fired = True
        filler = self._filler()
        if self.decodes.size:
            self.add_all_decodes(batch)
        if filler is not None and self.kv.can_admit(filler.prefill_tokens):
            self.waiting.remove(filler)
            self._prefill(filler, batch)

    def _filler(self) -> Request | None:
        length = self.token_budget - self.hold_n
        return next((r for r in self.waiting if r.prefill_tokens == length), None)

    def _admit(self, batch: Batch) -> bool:
        """Prefill the next prompt, alone; before the batch is fired its filler is passed over."""
        kept = None if self._fired else self._filler()
        for request in self.waiting:
            if request is kept:
                continue
            if request is self.waiting[0] and self.reject_too_long(batch):
                return False
            if not self.kv.can_admit(request.prefill_tokens):
                return False
            self.waiting.remove(request)
            self._prefill(request, batch)
            return True
        return False

    def _prefill(self, request: Request, batch: Batch) -> None:
        self.kv.allocate(request, request.prefill_tokens)
        self.start_prefill(request)
        batch.add_prefill(request, request.prefill_tokens)
