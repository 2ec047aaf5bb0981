"""A tiny engine with random decisions: contract tables, and every token and recorded sample one by one.

It decides nothing sensibly; it only makes tables as the replicas make them, and keeps beside them what the
metrics must find out from those tables: the time of each token, and the TBT samples that the papers' engines
would have recorded after each batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

REQUEST_COLUMNS = {
    "id": "int64",
    "replica": "int64",
    "arrival_ns": "int64",
    "prompt_tokens": "int64",
    "output_tokens": "int64",
    "slo_class": "str",
    "tbt_s": "float64",
    "ttft_s_target": "float64",
    "ttlt_s": "float64",
    "tier": "int64",
    "priority": "bool",
    "first_scheduled_ns": "int64",
    "prefill_end_ns": "int64",
    "first_token_ns": "int64",
    "finish_ns": "int64",
    "generated": "int64",
    "preemptions": "int64",
    "chunks": "int64",
    "prompt_completions": "int64",
    "status": "str",
    "reject_reason": "str",
}
ITERATION_COLUMNS = [
    "replica",
    "iteration",
    "start_ns",
    "end_ns",
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
]
RANGE_COLUMNS = ["id", "replica", "first_iteration", "last_iteration"]
CLASSES = [("paying", 0.004, 0.05, np.nan), ("free", np.nan, np.nan, 0.1), ("none", np.nan, np.nan, np.nan)]


@dataclass
class Job:
    """A request of the reference engine."""

    row: dict[str, object]
    chunks_left: int
    restart_chunks: int
    target: int
    token_ns: list[int] = field(default_factory=list)
    token_iterations: list[int] = field(default_factory=list)
    gap: int = 0
    samples: list[int] = field(default_factory=list)

    @property
    def decoding(self) -> bool:
        return self.chunks_left == 0

    def emit(self, iteration: int, end: int) -> None:
        if self.token_ns:
            self.gap = end - self.token_ns[-1]
        else:
            self.row["first_token_ns"] = end
        self.token_ns.append(end)
        self.token_iterations.append(iteration)


@dataclass
class Tables:
    """What a run leaves, and the truth it was made from (by request row)."""

    requests: pd.DataFrame
    iterations: pd.DataFrame
    token_ranges: pd.DataFrame
    token_ns: list[list[int]]
    samples: list[list[int]]

    @property
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        return self.requests, self.iterations, self.token_ranges


class Engine:
    """One replica; `skip` and `preempt` are probabilities per running decode and iteration."""

    def __init__(
        self, rng: np.random.Generator, replica: int, emits: bool, skip: float, preempt: float
    ) -> None:
        self.rng, self.replica, self.emits, self.skip, self.preempt = rng, replica, emits, skip, preempt
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.rows: list[list[int]] = []

    def serve(self, jobs: list[Job], max_iterations: int) -> None:
        now, pending = 0, list(jobs)
        while (pending or self.waiting or self.running) and len(self.rows) < max_iterations:
            if not self.waiting and not self.running:
                now = max(now, int(str(pending[0].row["arrival_ns"])))
            while pending and int(str(pending[0].row["arrival_ns"])) <= now:
                self.waiting.append(pending.pop(0))
            now = self.step(now)

    def step(self, now: int) -> int:
        preempted = [j for j in self.running if j.token_ns and self.rng.random() < self.preempt]
        for job in preempted:
            self.running.remove(job)
            self.waiting.insert(0, job)
            job.chunks_left = job.restart_chunks
            job.row["preemptions"] = int(str(job.row["preemptions"])) + 1
        while self.waiting and len(self.running) < 4:
            self.running.append(self.waiting.pop(0))
        batch = [j for j in self.running if not j.decoding or self.rng.random() >= self.skip]
        end = now + int(self.rng.integers(1, 5)) * 1_000_000 + int(self.rng.integers(0, 3))
        decodes = sum(j.decoding for j in batch)
        prefills = len(batch) - decodes
        lengths = sum(16 + len(j.token_ns) for j in self.running)
        work = [8 * prefills, prefills, 0, 36 * prefills, decodes, 20 * decodes]
        state = [len(self.waiting), len(self.running), lengths // 16, len(preempted)]
        self.rows.append([self.replica, len(self.rows), now, end, *work, *state])
        for job in batch:
            self.advance(job, now, end)
        return end

    def advance(self, job: Job, now: int, end: int) -> None:
        iteration = len(self.rows) - 1
        if job.decoding:
            job.emit(iteration, end)
        else:
            if not job.row["chunks"]:
                job.row["first_scheduled_ns"] = now
            job.row["chunks"] = int(str(job.row["chunks"])) + 1
            job.chunks_left -= 1
            if job.decoding:
                job.row["prompt_completions"] = int(str(job.row["prompt_completions"])) + 1
                job.row["prefill_end_ns"] = end
                if self.emits:
                    job.emit(iteration, end)
        if job.decoding:
            job.samples.append(job.gap)  # what the papers' engines record after the batch
        if len(job.token_ns) == job.target:
            job.row |= {"finish_ns": end, "status": "finished"}
            self.running.remove(job)


def job(rng: np.random.Generator, id: int, arrival: int, replica: int) -> Job:
    output = int(rng.choice([1, 2, 3, 12]))
    name, tbt, ttft, ttlt = CLASSES[int(rng.integers(3))]
    row: dict[str, object] = {"id": id, "replica": replica, "arrival_ns": arrival, "prompt_tokens": 16}
    row |= {"output_tokens": output, "slo_class": name, "tbt_s": tbt, "ttft_s_target": ttft, "ttlt_s": ttlt}
    row |= {"tier": -1, "priority": False, "first_scheduled_ns": -1, "prefill_end_ns": -1}
    row |= {"first_token_ns": -1, "finish_ns": -1, "generated": 0, "preemptions": 0, "chunks": 0}
    row |= {"prompt_completions": 0, "status": "unfinished", "reject_reason": ""}
    chunks = int(rng.integers(1, 4))
    return Job(row, chunks, chunks, output)


def ranges_of(job: Job) -> list[list[int]]:
    """Consecutive token iterations as [id, replica, first, last]."""
    ranges: list[list[int]] = []
    for iteration in job.token_iterations:
        if ranges and ranges[-1][3] == iteration - 1:
            ranges[-1][3] = iteration
        else:
            ranges.append([int(str(job.row["id"])), int(str(job.row["replica"])), iteration, iteration])
    return ranges


def table(rows: list[list[int]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(np.array(rows, dtype=np.int64).reshape(-1, len(columns)), columns=columns)


def run(
    seed: int,
    *,
    count: int = 30,
    replicas: int = 2,
    emits: bool = True,
    skip: float = 0.1,
    preempt: float = 0.05,
    max_iterations: int = 10**6,
    rejected: int = 2,
) -> Tables:
    """A random run; `max_iterations` a replica cuts it short, leaving requests unfinished."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.integers(0, 8_000_000, count))
    jobs = [job(rng, 3 * i, int(at), i % replicas) for i, at in enumerate(arrivals)]
    refused = set(rng.choice(count, min(rejected, count), replace=False).tolist()) if count else set()
    for i in refused:
        jobs[i].row |= {"status": "rejected", "reject_reason": "prompt too long"}
    rows: list[list[int]] = []
    for replica in range(replicas):
        engine = Engine(rng, replica, emits, skip, preempt)
        mine = [j for i, j in enumerate(jobs) if i % replicas == replica and i not in refused]
        engine.serve(mine, max_iterations)
        rows += engine.rows
    for j in jobs:
        j.row["generated"] = len(j.token_ns)
    requests = pd.DataFrame([j.row for j in jobs], columns=list(REQUEST_COLUMNS)).astype(REQUEST_COLUMNS)
    ranges = table([r for j in jobs for r in ranges_of(j)], RANGE_COLUMNS)
    iterations = table(rows, ITERATION_COLUMNS)
    return Tables(requests, iterations, ranges, [j.token_ns for j in jobs], [j.samples for j in jobs])


def on_set_clock(run: Tables, seed: int) -> Tables:
    """The same run as a replica with a DecodeSet logs it: some ranges count only the iterations `in_set`."""
    rng = np.random.default_rng(seed)
    iterations = run.iterations.assign(in_set=rng.random(len(run.iterations)) < 0.7)
    place = iterations.groupby("replica")["in_set"].cumsum() - 1
    place.index = pd.MultiIndex.from_frame(iterations[["replica", "iteration"]])
    in_set = dict(zip(place.index, iterations["in_set"], strict=True))
    at = place.to_dict()
    rows: list[list[int]] = []
    for id, replica, first, last in run.token_ranges.itertuples(index=False):
        for iteration in range(first, last + 1):
            counted = bool(in_set[replica, iteration])
            index = int(at[replica, iteration]) if counted else iteration
            if rows and rows[-1][:2] + rows[-1][3:] == [id, replica, index - 1, counted]:
                rows[-1][3] = index
            else:
                rows.append([id, replica, index, index, counted])
    ranges = table(rows, [*RANGE_COLUMNS, "in_set"])
    ranges["in_set"] = ranges["in_set"].astype(bool)
    return Tables(run.requests, iterations, ranges, run.token_ns, run.samples)
