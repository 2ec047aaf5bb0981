"""Recorder: the columnar iteration log of one replica, and the tables made of it afterwards.

One row is written per event of the loop, not per iteration: a macro-step is one row with a count, expanded
into its iterations when the run is over. Observers see every step as it happens; only the hooks a subclass
overrides are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from llmsim.core.ramp import Ramp
from llmsim.units import FS_PER_NS

if TYPE_CHECKING:
    from llmsim.core.batch import Batch
    from llmsim.core.decodes import DecodeSet
    from llmsim.core.kvcache import KVCache
    from llmsim.schedulers.base import Scheduler

FIELDS = (
    "start_ns",
    "end_ns",
    "iterations",
    "prefill_tokens",
    "prefill_seqs",
    "prefill_context",
    "prefill_attention",
    "decode_tokens",
    "decode_context",
    "waiting",
    "running",
    "kv_used_blocks",
    "preempted",
    "in_set",
)
"""Columns of the log, one int64 each; `in_set` is 1 where the replica's DecodeSet advanced."""


ROW = Struct(f"{len(FIELDS)}q")
"""A row as the bytes of its int64s: next to no time more than a tuple, and nothing to convert or collect later."""

RUN_FIELDS = 5
"""What the log keeps of a run before its ring: start_ns, carry, first and growth of its Ramp (zeros for ends listed
one by one), and the DecodeSet's step when it began."""


class Observer:
    """Hooks into a replica's loop; override what you need.

    A hook that is overridden is called at every step, so it sees macro-steps as they are (`ends` has one end
    an iteration); run with step_by_step for one call an iteration.
    """

    def on_batch(self, batch: Batch, start_ns: int, ends: Sequence[int], scheduler: Scheduler, kv: KVCache) -> None:
        """A batch ran from `start_ns`; called before its tokens are credited, KV as the batch was formed."""


class Recorder:
    """Log of one replica."""

    def __init__(self, observer: Observer | None = None) -> None:
        self.iterations = 0
        self._rows = bytearray()
        self._runs = bytearray()
        """Per run: RUN_FIELDS, then the DecodeSet's ring of block growth (zeros where nothing grows), all int64."""
        self._run: Struct | None = None  # as long as the ring
        self._logged_runs = 0
        self._listed: dict[int, Sequence[int]] = {}
        """Ends of the runs that are no Ramp, by the run's number."""
        self._queued_ns: list[int] = []
        self._queued_in: list[int] = []
        overridden = observer is not None and type(observer).on_batch is not Observer.on_batch
        self._on_batch = observer.on_batch if observer is not None and overridden else None

    def log(
        self,
        batch: Batch,
        start_ns: int,
        ends: Sequence[int],
        end_ns: int,
        waiting: int,
        scheduler: Scheduler,
        kv: KVCache,
    ) -> int:
        """Record one step whose last iteration ended at `end_ns`; returns that iteration's index.

        `waiting` requests were left queued when the batch was formed.
        """
        count = len(ends)
        decodes = batch.decodes
        self._rows += ROW.pack(
            start_ns,
            end_ns,
            count,
            batch.prefill_tokens,
            batch.prefill_seqs,
            batch.prefill_context,
            batch.prefill_attention,
            batch.decode_tokens,
            batch.decode_context,
            waiting,
            scheduler.resident,
            kv.num_blocks - kv.free_blocks,
            len(batch.preempted),
            decodes is not None,
        )
        if count > 1:
            self._log_run(ends, decodes, kv.block_size)
        if self._on_batch is not None:
            self._on_batch(batch, start_ns, ends, scheduler, kv)
        self.iterations += count
        return self.iterations - 1

    def _log_run(self, ends: Sequence[int], decodes: DecodeSet | None, block_size: int) -> None:
        """What the repetitions of the row just logged differ in."""
        if self._run is None:
            self._run = Struct(f"{RUN_FIELDS + block_size}q")
            self._flat = (0,) * block_size
        step, ring = (decodes.step, decodes.ring() or self._flat) if decodes is not None else (0, self._flat)
        if isinstance(ends, Ramp):
            self._runs += self._run.pack(ends.start_ns, ends.carry, ends.first, ends.growth, step, *ring)
        else:
            self._listed[self._logged_runs] = ends
            self._runs += self._run.pack(0, 0, 0, 0, step, *ring)
        self._logged_runs += 1

    def queue_grew(self, arrivals_ns: Sequence[int]) -> None:
        """Requests that joined the queue at these times while the run just logged went on."""
        self._queued_ns += arrivals_ns
        self._queued_in += [self._logged_runs - 1] * len(arrivals_ns)

    def drain(self) -> dict[str, np.ndarray]:
        """`table` of what was logged since the last call; it is forgotten here."""
        columns = self.table()
        self._rows, self._runs, self._logged_runs = bytearray(), bytearray(), 0
        self._listed, self._queued_ns, self._queued_in = {}, [], []
        return columns

    def table(self) -> dict[str, np.ndarray]:
        """The log with one row an iteration: FIELDS but `iterations`, int64 arrays of equal length."""
        # bytes: a view of the bytearray would keep it from growing.
        rows = np.frombuffer(bytes(self._rows), np.int64).reshape(-1, len(FIELDS))
        counts = rows[:, FIELDS.index("iterations")]
        columns = {
            name: np.repeat(np.ascontiguousarray(rows[:, at]), counts)
            for at, name in enumerate(FIELDS)
            if name != "iterations"
        }
        if self._runs:
            self._expand_runs(columns, rows, counts)
        return columns

    def _expand_runs(self, columns: dict[str, np.ndarray], rows: np.ndarray, counts: np.ndarray) -> None:
        """Write each repetition's own times, context and KV use into the repeated rows."""
        first_of = np.cumsum(counts) - counts
        run_rows = np.flatnonzero(counts > 1)  # in the order of self._runs
        run_counts = counts[run_rows]
        total = int(run_counts.sum())
        run_of = np.repeat(np.arange(len(run_rows)), run_counts)
        nth = np.arange(total) - np.repeat(np.cumsum(run_counts) - run_counts, run_counts)
        at = np.repeat(first_of[run_rows], run_counts) + nth
        runs = np.frombuffer(bytes(self._runs), np.int64).reshape(len(run_rows), -1)
        ends = self._run_ends(runs, run_of, nth)
        columns["end_ns"][at] = ends
        later = nth > 0
        columns["start_ns"][at[later]] = ends[np.flatnonzero(later) - 1]
        columns["decode_context"][at] += nth * columns["decode_tokens"][at]
        chunk = columns["prefill_tokens"][at]
        columns["prefill_context"][at] += nth * chunk
        columns["prefill_attention"][at] += nth * chunk * chunk
        columns["preempted"][at[later]] = 0
        if self._queued_ns:
            run_ends = np.cumsum(run_counts)
            columns["waiting"][at] += self._queue_growth(columns["start_ns"][at], run_ends)
        columns["kv_used_blocks"][at] += self._growth(runs, run_of, nth)

    def _queue_growth(self, starts: np.ndarray, run_ends: np.ndarray) -> np.ndarray:
        """Requests queued since each repetition's run began, given all starts and where each run stops.

        Runs follow each other in time, so one search places every arrival: it counts from the first
        repetition that starts at its instant or later to the end of its run.
        """
        until = run_ends[np.array(self._queued_in)]
        since = np.minimum(np.searchsorted(starts, np.array(self._queued_ns)), until)
        steps = np.bincount(since, minlength=len(starts) + 1) - np.bincount(until, minlength=len(starts) + 1)
        grown: np.ndarray = np.cumsum(steps)[: len(starts)]
        return grown

    def _run_ends(self, runs: np.ndarray, run_of: np.ndarray, nth: np.ndarray) -> np.ndarray:
        """End (ns) of the nth iteration of each run, in closed form for ramps."""
        start, carry, first, growth = (np.ascontiguousarray(column)[run_of] for column in runs[:, :4].T)
        k = nth + 1
        out: np.ndarray = start + (carry + first * k + growth * (k * (k - 1) // 2)) // FS_PER_NS
        begins = np.flatnonzero(nth == 0)
        for i, ends in self._listed.items():
            out[begins[i] : begins[i] + len(ends)] = list(ends)
        return out

    def _growth(self, runs: np.ndarray, run_of: np.ndarray, nth: np.ndarray) -> np.ndarray:
        """KV blocks taken since the first iteration of the run (whose own growth the log holds already)."""
        rings = runs[:, RUN_FIELDS:]
        size = rings.shape[1]
        first = runs[:, 4] % size
        prefix = np.zeros((len(rings), 2 * size + 1), dtype=np.int64)  # two rounds, so that no sum wraps
        np.cumsum(np.concatenate([rings, rings], axis=1), axis=1, out=prefix[:, 1:])
        rounds, rest = np.divmod(nth, size)
        begin = (first + 1)[run_of]
        grown: np.ndarray = rounds * prefix[run_of, size] + prefix[run_of, begin + rest] - prefix[run_of, begin]
        return grown
