"""Queues of known load as request and iteration tables: what the saturation verdict is measured on.

Load rho is the arrival rate over the rate at which the server answers when it never lacks work. `python -m
tests.metrics.queues` prints a table of the verdicts.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd

from llmsim.metrics import saturation
from tests.metrics.reference import ITERATION_COLUMNS

MS = 10**6
Tables = tuple[pd.DataFrame, pd.DataFrame]


def as_tables(arrival: np.ndarray, start: np.ndarray, finish: np.ndarray, rows: list[list[int]]) -> Tables:
    """`rows` are (start, end, requests left waiting) of each iteration, ns."""
    requests = pd.DataFrame({"arrival_ns": arrival, "first_scheduled_ns": start, "finish_ns": finish})
    requests["status"] = np.where(finish >= 0, "finished", "unfinished")
    iterations = pd.DataFrame(0, index=range(len(rows)), columns=ITERATION_COLUMNS, dtype="int64")
    iterations[["start_ns", "end_ns", "waiting"]] = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return requests, iterations


def poisson(rng: np.random.Generator, count: int, gap_ns: float) -> np.ndarray:
    return np.cumsum(rng.exponential(gap_ns, count)).astype(np.int64)


def md1(rng: np.random.Generator, rho: float, count: int) -> Tables:
    """One request at a time, each 100 ms: an iteration is a service."""
    service = 100 * MS
    arrival = poisson(rng, count, service / rho)
    index = np.arange(count)
    start = np.maximum.accumulate(arrival - index * service) + index * service
    waiting = np.searchsorted(arrival, start, "right") - index - 1
    finish = start + service
    return as_tables(arrival, start, finish, np.stack([start, finish, waiting], axis=1).tolist())


def mmk(rng: np.random.Generator, rho: float, count: int, servers: int = 16) -> Tables:
    """`servers` at once, each exponential with mean 1.6 s; iterations of 50 ms while any is busy."""
    mean = 1600 * MS
    arrival = poisson(rng, count, mean / servers / rho)
    free = [0] * servers
    start, finish = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    lengths = rng.exponential(mean, count).tolist()
    for i, (at, length) in enumerate(zip(arrival.tolist(), lengths, strict=True)):
        start[i] = max(at, heapq.heappop(free))
        finish[i] = start[i] + int(length)
        heapq.heappush(free, int(finish[i]))
    tick = 50 * MS
    begins = np.arange(0, finish.max(), tick)
    came, began = np.searchsorted(arrival, begins, "right"), np.searchsorted(start, begins, "right")
    left = np.searchsorted(np.sort(finish), begins, "right")
    busy = came > left
    rows = np.stack([begins, begins + tick, came - began], axis=1)[busy]
    return as_tables(arrival, start, finish, rows.tolist())


def batching(rng: np.random.Generator, rho: float, count: int, *, static: bool = False) -> Tables:
    """A batch of up to 16 requests of 1 to 79 iterations, 8 ms + 0.5 ms a member.

    Continuous: members come and go at every iteration. Static: the next batch starts when the last member of
    this one is done, so requests queue at any load and that is no sign of saturation.
    """
    slots = 16
    lengths = rng.integers(1, 80, count)
    # A full static batch runs for its longest member, a continuous one for the mean; each token costs 0.5 ms.
    steps = 80 * slots / (slots + 1) if static else lengths.mean()
    answered = 8 * MS * steps / slots + lengths.mean() * MS / 2
    arrival = poisson(rng, count, answered / rho)
    start, finish = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    now, came, began, rows = 0, 0, 0, []
    running: list[list[int]] = []
    while came < count or began < count or running:
        if not running and began == came:
            now = max(now, int(arrival[came]))
        while came < count and arrival[came] <= now:
            came += 1
        while (not static or not running or running[0][2] == now) and len(running) < slots and began < came:
            start[began] = now
            running.append([began, int(lengths[began]), now])
            began += 1
        end = now + 8 * MS + len(running) * MS // 2
        rows.append([now, end, came - began])
        for member in running:
            member[1] -= 1
            if not member[1]:
                finish[member[0]] = end
        running = [member for member in running if member[1]]
        now = end
    return as_tables(arrival, start, finish, rows)


def static_batching(rng: np.random.Generator, rho: float, count: int) -> Tables:
    return batching(rng, rho, count, static=True)


QUEUES: dict[str, Callable[[np.random.Generator, float, int], Tables]] = {
    "M/D/1": md1,
    "M/M/16": mmk,
    "continuous batching": batching,
    "static batching": static_batching,
}


def verdicts(name: str, rho: float, count: int, runs: int) -> Counter[str]:
    """Verdicts on `runs` independent runs of `count` requests."""
    found = Counter[str]()
    for seed in range(runs):
        requests, iterations = QUEUES[name](np.random.default_rng([seed, count]), rho, count)
        found[saturation(requests, iterations).verdict] += 1
    return found


def study(runs: int) -> None:
    """Print the shares of the verdicts, per cent: stable / near saturation / overloaded / undetermined."""
    loads = (0.5, 0.8, 0.95, 1.0, 1.05, 1.2, 2.0)
    print("| queue | requests |", " | ".join(f"load {rho}" for rho in loads), "|")
    for name in QUEUES:
        for count in (50, 200, 1000, 5000):
            cells = []
            for rho in loads:
                found = verdicts(name, rho, count, runs)
                shares = (found[v] * 100 / runs for v in ("stable", "near saturation", "overloaded", "undetermined"))
                cells.append(" / ".join(f"{share:.0f}" for share in shares))
            print(f"| {name} | {count} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    study(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
