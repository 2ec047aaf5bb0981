"""The `models` part of a summary: what the requests for each model got, over the same span as the run's own figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from llmsim.metrics.latency import Definitions, elapsed_ns, itl_samples, tpot_ns, ttft_ns
from llmsim.metrics.load import Load
from llmsim.metrics.quantiles import Floats
from llmsim.metrics.samples import Sample
from llmsim.metrics.saturation import judge
from llmsim.metrics.timeline import Mask, Timeline, ints
from llmsim.metrics.usage import Presence, Span, busy_shares, mean_busy, worked_more
from llmsim.units import MILLISECOND, SECOND

POINTS = {"median": 50.0, "p90": 90.0, "p99": 99.0}
NAMES = ("ttft", "tpot", "e2el", "itl")

Report = dict[str, Any]


class ByModel:
    """Requests and iterations added up by model; `members` are the replicas of each.

    Requests that name no model are those of the only one. Samples and loads are exact up to `exact_values` and
    `exact_times` (samples.py, load.py).
    """

    def __init__(
        self,
        members: Mapping[str, Sequence[int]],
        definitions: Definitions,
        first_token_at_prefill_end: bool | None,
        exact_values: int,
        exact_times: int,
    ) -> None:
        self._definitions, self._first_token_at_prefill_end = definitions, first_token_at_prefill_end
        self._models = {model: _Model(indices, exact_values, exact_times) for model, indices in members.items()}

    def add_requests(self, requests: pd.DataFrame, timeline: Timeline, measured: Mask, start_ns: int) -> None:
        """Requests that are done with; those of the latencies are `measured` (requests,), the span begins at
        `start_ns`."""
        if not self._models:
            return
        asked = requests["model"].to_numpy()
        finished = (requests["status"] == "finished").to_numpy(dtype=bool)
        each = {
            "ttft": ttft_ns(requests, self._definitions),
            "tpot": tpot_ns(requests),
            "e2el": elapsed_ns(requests, "finish_ns"),
        }
        for model, found in self._models.items():
            several = len(self._models) > 1
            chosen = np.asarray(asked == model, dtype=bool) if several else np.ones(len(requests), dtype=bool)
            found.count(requests, chosen, finished, start_ns)
            keep = measured & chosen & finished
            for name, values in each.items():
                found.latencies[name].add(values[keep & ~np.isnan(values)])
            gaps = itl_samples(
                requests, timeline, measured & chosen, self._definitions, self._first_token_at_prefill_end
            )
            found.latencies["itl"].add(*gaps)
            found.load.add_requests(requests[chosen])

    def add_iterations(self, iterations: pd.DataFrame, span: Span) -> None:
        """Further rows of the iteration table."""
        for found in self._models.values():
            theirs = iterations[np.isin(ints(iterations, "replica"), found.members)]
            found.load.busy.add(theirs)
            found.worked = worked_more(found.worked, ints(theirs, "replica"), span.overlap(theirs))

    def reports(self, span: Span, closed_loop: bool = False, horizon_ns: int | None = None) -> dict[str, Any]:
        """`models`: counts, rates, latencies of the finished requests that are measured, load of the replicas."""
        reports = {}
        for model, found in self._models.items():
            own = replace(span, presence=(span.presence or Presence.always(span.replicas)).only(found.members))
            verdict = judge(
                found.load,
                replicas=span.replicas,
                presence=own.presence,
                closed_loop=closed_loop,
                horizon_ns=horizon_ns,
            )
            worked: Floats = np.zeros(span.replicas)
            worked[: len(found.worked)] = found.worked
            reports[model] = found.report(span) | {
                "busy_share": mean_busy(busy_shares(worked, own), own),
                "saturation": {"verdict": verdict.verdict, "reason": verdict.reason},
            }
        return {"models": reports} if reports else {}


class _Model:
    """What one model's requests and replicas came to."""

    def __init__(self, members: Sequence[int], exact_values: int, exact_times: int) -> None:
        self.members = list(members)
        self.latencies = {name: Sample(exact_values) for name in NAMES}
        self.load = Load(limit=exact_times)
        self.worked: Floats = np.zeros(0)
        self._counts: Counter[str] = Counter()

    def count(self, requests: pd.DataFrame, chosen: Mask, finished: Mask, start_ns: int) -> None:
        """Requests sent and answered, and tokens of those answered in the span."""
        inside = chosen & finished & (ints(requests, "finish_ns") >= start_ns)
        self._counts["sent"] += int(chosen.sum())
        self._counts["completed"] += int((chosen & finished).sum())
        self._counts["inside"] += int(inside.sum())
        self._counts["prompt"] += int(ints(requests, "prompt_tokens")[inside].sum())
        self._counts["output"] += int(ints(requests, "generated")[inside].sum())

    def report(self, span: Span) -> Report:
        counts, seconds = self._counts, span.length_ns / SECOND
        rates = {
            "request_throughput": counts["inside"],
            "output_throughput": counts["output"],
            "total_token_throughput": counts["output"] + counts["prompt"],
        }
        report: Report = {
            "replicas": len(self.members),
            "sent": counts["sent"],
            "completed": counts["completed"],
            **{name: count / seconds if seconds else None for name, count in rates.items()},
        }
        for name, sample in self.latencies.items():
            points = sample.percentiles(list(POINTS.values())) / MILLISECOND
            report[f"mean_{name}_ms"] = sample.mean() / MILLISECOND
            report |= {f"{point}_{name}_ms": float(at) for point, at in zip(POINTS, points, strict=True)}
        return report
