"""Decision traces: does a scheduler of this project decide as the original did, iteration by iteration?

``python -m llmsim.testing.golden FILE...`` replays each file's requests, KV pool and batch-time function through
this project's scheduler and loop, one iteration at a time, and compares batch, preemptions, free blocks and times
with what the original did. A file is one (gzipped) JSON object with the keys scheduler, params, kv, semantics,
cost, requests and iterations.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.core.clock import Clock
from llmsim.core.kvcache import KVCache
from llmsim.core.request import Request, SloClass
from llmsim.costs.base import CostModel
from llmsim.engine.recorder import Observer, Recorder
from llmsim.engine.replica import Replica
from llmsim.errors import ConfigError, LlmsimError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.schedulers.faster_transformer import FasterTransformer
from llmsim.schedulers.niyama import Niyama
from llmsim.schedulers.orca import Orca
from llmsim.schedulers.sarathi import Sarathi
from llmsim.schedulers.simple_chunking import SimpleChunking
from llmsim.schedulers.slai import Slai
from llmsim.schedulers.vllm_v0 import VllmV0
from llmsim.units import FS_PER_SECOND, MICROSECOND, to_ns, to_seconds

if TYPE_CHECKING:
    from llmsim.core.batch import Batch, Work
    from llmsim.schedulers.base import Scheduler

SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "faster_transformer": FasterTransformer,
    "niyama": partial(Niyama, largest_slack_first=True, stale_heap=True, unchecked_memory=True),
    "orca": Orca,
    "sarathi": Sarathi,
    "simple_chunking": SimpleChunking,
    "slai": Slai,
    "vllm": VllmV0,
}
"""The originals' names and who stands for them here, faults included; parameters carry the originals' names."""


class GoldenCost(CostModel):
    """max(floor, base + per token x tokens) + per decode-context token x context, the traces' own function."""

    def __init__(self, floor_s: float, base_s: float, per_token_s: float, per_decode_context_token_s: float) -> None:
        self._floor, self._base, self._token, self._context = (
            round(value * FS_PER_SECOND) for value in (floor_s, base_s, per_token_s, per_decode_context_token_s)
        )

    def femtoseconds(self, work: Work) -> int:
        """Price of one iteration."""
        return max(self._floor, self._base + self._token * work.tokens) + self._context * work.decode_context

    def seconds(self, work: Work) -> float:
        """The same in seconds."""
        return self.femtoseconds(work) / FS_PER_SECOND


@dataclass
class Comparison(Observer):
    """Compares each iteration as it happens with the recorded one."""

    expected: list[dict[str, Any]]
    at: int = 0
    mismatches: int = 0
    first: str = ""
    notes: list[str] = field(default_factory=list)

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
        preempted = [r.id for r in batch.preempted]
        if preempted != want["preempted"]:
            self._note("preempted", preempted, want["preempted"])
        for name, got in (("start_s", start_ns), ("end_s", ends[-1])):
            if abs(got - to_ns(want[name])) > MICROSECOND:
                self._note(name, to_seconds(got), want[name])

    def settle(self, kv: KVCache) -> None:
        """After the iteration's tokens are credited: its free blocks, and the verdict."""
        if self.at < len(self.expected):
            want = self.expected[self.at]["free_blocks"]
            if kv.free_blocks != want:
                self._note("free_blocks", kv.free_blocks, want)
        if self.notes:
            self._miss("; ".join(self.notes))
        self.at += 1

    def _note(self, what: str, got: object, want: object) -> None:
        self.notes.append(f"{what}: got {got}, original {want}")

    def _miss(self, why: str) -> None:
        self.mismatches += 1
        if not self.first:
            self.first = f"iteration {self.at}: {why}"


class _Settled(Replica):
    """A replica that tells the comparison when an iteration is committed."""

    comparison: Comparison

    def _commit(self, batch: Batch, start: int, ends: Sequence[int], last: int, waiting: int) -> None:
        super()._commit(batch, start, ends, last, waiting)
        self.comparison.settle(self.kv)


def compare(trace: dict[str, Any]) -> Comparison:
    """Replay one decision trace; raises ConfigError for a scheduler that has no counterpart here."""
    name = trace["scheduler"]
    if name not in SCHEDULERS:
        raise ConfigError(f"no scheduler for the original {name!r}; known: {', '.join(sorted(SCHEDULERS))}")
    pool, semantics, cost = trace["kv"], trace["semantics"], trace["cost"]
    scheduler = SCHEDULERS[name](**trace["params"])
    if isinstance(scheduler, SimpleChunking):
        # The recordings' driver went to the next arrival after an empty batch, and polled again after the last.
        scheduler.empty_turn_passes = False
    kv = KVCache(pool["num_blocks"], pool["block_size"], pool["watermark"])
    scheduler.bind(kv, pool["max_model_len"])
    comparison = Comparison(trace["iterations"])
    env = Clock()
    replica = _Settled(
        env,
        scheduler,
        SimulatedExecutor(GoldenCost(**cost)),
        kv,
        Recorder(comparison),
        macro=False,
        first_token_at_prefill_end=semantics["first_token_at_prefill_end"],
        regenerate_output=semantics.get("preempted_request_regenerates_output", False),
    )
    replica.comparison = comparison
    env.process(_arrivals(env, replica, trace["requests"]))
    env.run()
    missing = len(comparison.expected) - comparison.at
    if missing > 0:
        comparison.mismatches += missing
        comparison.first = comparison.first or f"iteration {comparison.at}: the original ran {missing} more"
    return comparison


def _arrivals(env: Clock, replica: Replica, rows: list[dict[str, Any]]) -> Any:
    for row in sorted(rows, key=lambda row: (row["arrival_s"], row["id"])):
        at = to_ns(row["arrival_s"])
        if at > env.now:
            yield env.timeout(at - env.now)
        slo = SloClass(tbt_s=row.get("tbt_s"), tier=row.get("tier"), priority=row.get("strict", False))
        replica.submit(Request(row["id"], at, row["prompt_tokens"], row["output_tokens"], slo))
    if isinstance(replica.scheduler, SimpleChunking):
        replica.scheduler.empty_turn_passes = True


def main(paths: Sequence[str]) -> int:
    """Compare every file; 0 if none had a mismatch, 1 if any had, 2 for a file that cannot be used."""
    if not paths:
        print("usage: python -m llmsim.testing.golden FILE...", file=sys.stderr)
        return 2
    iterations = mismatches = 0
    status = 0
    for path in paths:
        try:
            raw = Path(path).read_bytes()
            trace = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
            result = compare(trace)
        except (OSError, EOFError, ValueError, KeyError, TypeError, LlmsimError) as error:
            print(f"{Path(path).name}: error: {type(error).__name__}: {error}")
            status = 2
            continue
        iterations += len(result.expected)
        mismatches += result.mismatches
        print(
            f"{Path(path).name}: iterations {len(result.expected)} mismatches {result.mismatches}"
            + (f" first at {result.first}" if result.first else "")
        )
    print(f"total: files {len(paths)} iterations {iterations} mismatches {mismatches}")
    return status or (1 if mismatches else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
