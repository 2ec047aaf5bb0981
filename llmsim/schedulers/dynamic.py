"""Dynamic batching of the LLM Scheduler Benchmark Suite: the naive batcher with a batch size that follows memory.

As llm-scheduler at 0255878, dynamic_scheduler.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch
from llmsim.errors import ConfigError
from llmsim.schedulers.base import at_least, finite
from llmsim.schedulers.naive import Naive
from llmsim.units import to_ns

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache


@dataclass
class Dynamic(Naive):
    """Batches grow by two after a batch that left memory, and shrink by one after one that did not.

    Memory in use is `memory_floor` (the share of the GPU that weights take) plus the peak share of KV blocks in the
    rest; at `memory_threshold` or above the batch shrinks. `adapts` false is the original on a CPU. A batch also
    starts once its first request was collected `max_time_wait_s` ago and another one comes; as the original tests
    this against the collection, not the arrival, it never happens unless timeout_s is longer.
    """

    batch_size: int = 8
    min_batch_size: int = 4
    max_batch_size: int = 32
    max_time_wait_s: float = 2.0
    memory_threshold: float = 0.8
    memory_floor: float = 0.0
    adapts: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, min_batch_size=self.min_batch_size)
        if self.max_batch_size < self.min_batch_size:
            raise ConfigError(
                f"max_batch_size must be at least min_batch_size={self.min_batch_size} but got {self.max_batch_size}"
            )
        finite(most=1, memory_threshold=self.memory_threshold, memory_floor=self.memory_floor)
        finite(most=1e9, max_time_wait_s=self.max_time_wait_s)

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run at `batch_size`."""
        super().bind(kv, max_model_len)
        self._size = self.batch_size
        self._peak_blocks = 0
        self._longest_wait_ns = to_ns(self.max_time_wait_s)

    @property
    def target(self) -> int:
        """Requests of a full batch now."""
        return min(self._size, self.max_batch_size)

    def _due(self, now: int) -> int:
        last, first = (max(self._free_since_ns, self.waiting[i].arrival_ns) for i in (-1, 0))
        return now if last - first >= self._longest_wait_ns else super()._due(now)

    def executed(self, batch: Batch, start_ns: int, ends_ns: Sequence[int]) -> None:
        """Note how much memory the batch has used so far."""
        super().executed(batch, start_ns, ends_ns)
        used = self.kv.used_blocks
        if batch.decodes is not None and len(ends_ns) > 1:
            used += batch.decodes.growth(1, len(ends_ns) - 1)
        self._peak_blocks = max(self._peak_blocks, used)

    def batch_over(self) -> None:
        """Judge the size of the batch by the memory it took."""
        peak, self._peak_blocks = self._peak_blocks, 0
        if not self.adapts:
            return
        in_use = self.memory_floor + (1 - self.memory_floor) * peak / self.kv.num_blocks
        if in_use >= self.memory_threshold:
            self._size = max(self.min_batch_size, self._size - 1)
        else:
            self._size = min(self._size + 2, self.max_batch_size)
