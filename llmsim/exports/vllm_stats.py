"""The statistics of vLLM's benchmark record, by vLLM 0.33's formulas (`calculate_metrics` of vllm/benchmarks/serve.py).

Times are float seconds and are added in vLLM's order, so that its own function on the same lists gives the same
numbers. A statistic of nothing is 0, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.metrics.quantiles import Floats
from llmsim.metrics.timeline import Mask, ints
from llmsim.units import SECOND

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """The requests in seconds, one entry each; `done` are the answered ones, others have zeros where unknown."""

    start: Floats
    ttft: Floats
    latency: Floats
    prompt: list[int]
    output: list[int]
    itls: list[list[float]]
    done: Mask

    @classmethod
    def of(cls, requests: pd.DataFrame, itls_s: Sequence[Sequence[float] | Floats]) -> Answers:
        """Columns as `vllm_bench_json` says; ns become seconds."""
        arrival = ints(requests, "arrival_ns")
        done = (requests["status"] == "finished").to_numpy(dtype=bool)

        def since(column: str) -> Floats:
            at = ints(requests, column)
            elapsed: Floats = np.where(at == NEVER, 0, at - arrival) / SECOND
            return elapsed

        return cls(
            start=arrival / SECOND,
            ttft=since("first_token_ns"),
            latency=since("finish_ns"),
            prompt=ints(requests, "prompt_tokens").tolist(),
            output=np.where(done, ints(requests, "generated"), 0).tolist(),
            itls=[[float(gap) for gap in gaps] for gaps in itls_s],
            done=done,
        )

    @property
    def tpot(self) -> Floats:
        """Seconds per output token after the first (requests,), 0 with fewer than two."""
        steps = np.asarray(self.output, dtype=np.int64) - 1
        tpot: Floats = np.where(steps > 0, (self.latency - self.ttft) / np.maximum(steps, 1), 0)
        return tpot

    def duration(self) -> float:
        """Seconds from the first request sent to the last answer; 0 without requests."""
        return float((self.start + self.latency).max() - self.start.min()) if len(self.start) else 0.0

    def within(self, slo_ms: Mapping[str, float]) -> int:
        """How many answered requests keep every limit (ms) on ttft, tpot and e2el."""
        values = {"ttft": self.ttft, "tpot": self.tpot, "e2el": self.latency}
        met = self.done.copy()
        for name, limit in slo_ms.items():
            met &= values[name] <= limit / 1000
        return int(met.sum())


def rates(answers: Answers, seconds: float, good: int | None) -> Record:
    """Counts, and what they are a second of `seconds`; `good` requests kept their limits (None: there were none)."""
    completed = int(answers.done.sum())
    prompt = int(np.asarray(answers.prompt, dtype=np.int64)[answers.done].sum())
    output = sum(answers.output)

    def rate(count: int) -> float:
        return count / seconds if seconds else 0.0

    return {
        "duration": seconds,
        "completed": completed,
        "failed": len(answers.done) - completed,
        "total_input_tokens": prompt,
        "total_output_tokens": output,
        "request_throughput": rate(completed),
        "request_goodput": None if good is None else rate(good),
        "output_throughput": rate(output),
        "total_token_throughput": rate(prompt + output),
    }


def peaks(answers: Answers) -> Record:
    """Most output tokens, and most requests, in one second of a clock that starts with the first answered request."""
    if not answers.done.any():
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0, "rtfx": 0.0}
    at = np.flatnonzero(answers.done)
    start, latency = answers.start[at], answers.latency[at]
    origin = start.min()
    # Gap after gap, as vLLM adds them, so that a token at a second's edge falls on the same side of it.
    times = [np.cumsum([answers.start[i] + answers.ttft[i], *answers.itls[i]]) for i in at]
    tokens = np.bincount((np.concatenate(times) - origin).astype(np.int64))
    first = (start - origin).astype(np.int64)
    last = (start + latency - origin).astype(np.int64)
    seconds = int(last.max()) + 2
    active = np.cumsum(np.bincount(first, minlength=seconds) - np.bincount(last + 1, minlength=seconds))
    return {
        "max_output_tokens_per_s": float(tokens.max()),
        "max_concurrent_requests": int(active.max()),
        "rtfx": 0.0,  # of speech, which has no place here
    }


def latencies(answers: Answers, percentiles: Sequence[float]) -> Record:
    """mean_, median_, std_ and pXX_ of ttft, tpot, itl and e2el, ms, over answered requests."""
    done = answers.done
    several = done & (np.asarray(answers.output, dtype=np.int64) > 1)
    samples = {
        "ttft": answers.ttft[done],
        "tpot": answers.tpot[several],
        "itl": np.array([gap for i in np.flatnonzero(done) for gap in answers.itls[i]], dtype=np.float64),
        "e2el": answers.latency[done],
    }
    record: Record = {}
    for name, sample in samples.items():
        values = sample if len(sample) else np.zeros(1)
        record[f"mean_{name}_ms"] = float(np.mean(values)) * 1000
        record[f"median_{name}_ms"] = float(np.median(values)) * 1000
        record[f"std_{name}_ms"] = float(np.std(values)) * 1000
        points = np.percentile(values, percentiles).tolist()
        record |= {f"p{p:g}_{name}_ms": point * 1000 for p, point in zip(percentiles, points, strict=True)}
    return record
