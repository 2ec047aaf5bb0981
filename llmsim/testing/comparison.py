"""Comparison: what a replica decides, held against a recorded run iteration by iteration as it happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmsim.engine.async_replica import AsyncReplica
from llmsim.engine.recorder import Observer
from llmsim.engine.replica import Replica
from llmsim.units import MICROSECOND, to_ns, to_seconds

if TYPE_CHECKING:
    from llmsim.core.batch import Batch
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request
    from llmsim.schedulers.base import Scheduler


@dataclass
class Comparison(Observer):
    """`expected` are the recorded iterations; what a recording does not hold is not compared."""

    expected: list[dict[str, Any]]
    at: int = 0
    mismatches: int = 0
    first: str = ""
    formed_free: int = 0
    notes: list[str] = field(default_factory=list)
    in_vain: list[list[int]] = field(default_factory=list)
    """Who was preempted by each formation since the last iteration that scheduled nothing."""
    finished: list[int] = field(default_factory=list)
    ranks: dict[int, int] = field(default_factory=dict)
    """Places in `running` by request, as long as prompts are computed: a new place is a new admission."""

    def on_batch(self, batch: Batch, start_ns: int, ends: Sequence[int], scheduler: Scheduler, kv: KVCache) -> None:
        """Free blocks are compared by the next iteration's view, once finished requests have left."""
        self.notes = []
        if self.at >= len(self.expected):
            self._miss("an iteration more than the original's")
            return
        want = self.expected[self.at]
        got_batch = {(r.id, n) for r, n in zip(batch.prefills, batch.chunks, strict=True)}
        if batch.decodes is not None:
            got_batch |= {(r.id, 0) for r in batch.decodes.members}
        got_batch |= {(r.id, 0) for r in batch.decode_list}
        want_batch = {(i, n) for i, n in want["batch"]}
        if got_batch != want_batch:
            self._note("batch", sorted(got_batch - want_batch), sorted(want_batch - got_batch))
        self._same("preempted", [r.id for r in batch.preempted], want["preempted"])
        if "formed_free_blocks" in want:
            self._same("formed_free_blocks", self.formed_free, want["formed_free_blocks"])
            empty = [formation["preempted"] for formation in want.get("empty_formations", ())]
            self._same("empty_formations", self.in_vain, empty)
            admitted = [[r.id, r.computed] for r in batch.prefills if self.ranks.get(r.id) != r.rank]
            self._same("admitted", admitted, want.get("admitted", []))
            self.ranks |= {r.id: r.rank for r in batch.prefills}
        self.in_vain = []
        for name, got in (("start_s", start_ns), ("end_s", ends[-1])):
            if abs(got - to_ns(want[name])) > MICROSECOND:
                self._note(name, to_seconds(got), want[name])

    def settle(self, kv: KVCache) -> None:
        """After the iteration's tokens are credited: its free blocks, and the verdict."""
        if self.at < len(self.expected):
            want = self.expected[self.at]
            self._same("free_blocks", kv.free_blocks, want["free_blocks"])
            if "finished" in want:
                self._same("finished", sorted(self.finished), sorted(want["finished"]))
        self.finished = []
        if self.notes:
            self._miss("; ".join(self.notes))
        self.at += 1

    def end(self, unfinished: list[int], want: list[int]) -> None:
        """The run is over: iterations that did not come, and who was left without an answer."""
        missing = len(self.expected) - self.at
        if missing > 0:
            self.mismatches += missing
            self.first = self.first or f"iteration {self.at}: the original ran {missing} more"
        elif unfinished != want:
            self._miss(f"unfinished: got {unfinished}, original {want}")

    def _same(self, what: str, got: object, want: object) -> None:
        if got != want:
            self._note(what, got, want)

    def _note(self, what: str, got: object, want: object) -> None:
        self.notes.append(f"{what}: got {got}, original {want}")

    def _miss(self, why: str) -> None:
        self.mismatches += 1
        if not self.first:
            self.first = f"iteration {self.at}: {why}"


class Compared(Replica):
    """A replica that tells `comparison` what it does; with `cut` it stops where the recording was stopped."""

    comparison: Comparison
    cut: bool = False

    def _settle_losses(self, batch: Batch) -> None:
        super()._settle_losses(batch)
        if not batch.prefill_seqs and not batch.decode_tokens:
            self.comparison.in_vain.append([request.id for request in batch.preempted])

    def _repetitions(self, batch: Batch) -> int:
        self.comparison.formed_free = self.kv.free_blocks
        return super()._repetitions(batch)

    def _finish(self, request: Request, end: int) -> None:
        super()._finish(request, end)
        self.comparison.finished.append(request.id)

    def _commit(self, batch: Batch, start: int, ends: Sequence[int], last: int, waiting: int) -> None:
        super()._commit(batch, start, ends, last, waiting)
        self.comparison.settle(self.kv)
        if self.cut and self.comparison.at == len(self.comparison.expected):
            self.stop()


class ComparedAhead(Compared, AsyncReplica):
    """The same of a replica that forms batches one ahead."""
