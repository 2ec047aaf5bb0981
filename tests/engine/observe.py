"""What an observer notes of each batch, for tests to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmsim.core.batch import Batch
from llmsim.core.kvcache import KVCache
from llmsim.core.request import Request
from llmsim.engine.recorder import Observer
from llmsim.schedulers.base import Scheduler


@dataclass(frozen=True)
class Seen:
    """One batch: (request id, chunk) of its prefills, ids of decodes and of the preempted."""

    prefills: list[tuple[int, int]]
    decodes: list[int]
    preempted: list[int]
    iterations: int


@dataclass
class Batches(Observer):
    """All batches of a run."""

    batches: list[Seen] = field(default_factory=list)

    def on_batch(self, batch: Batch, start_ns: int, ends: Sequence[int], scheduler: Scheduler, kv: KVCache) -> None:
        decodes = [r.id for r in batch.decode_list]
        if batch.decodes is not None:
            decodes += [r.id for r in batch.decodes.members]
        prefills = [(r.id, c) for r, c in zip(batch.prefills, batch.chunks, strict=True)]
        self.batches.append(Seen(prefills, decodes, [r.id for r in batch.preempted], len(ends)))


def requests_of(rows: list[tuple[int, int, int]]) -> list[Request]:
    """Requests from (arrival_ns, prompt_tokens, output_tokens)."""
    return [Request(i, *row) for i, row in enumerate(rows)]
