"""The `models` part of a summary: what the requests for each model got, over the same span as the run's own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from llmsim.metrics.latency import Definitions, elapsed_ns, itl_samples, tpot_ns, ttft_ns
from llmsim.metrics.load import Load
from llmsim.metrics.quantiles import Floats, Ints
from llmsim.metrics.rates import Rates
from llmsim.metrics.samples import Sample
from llmsim.metrics.saturation import judge
from llmsim.metrics.timeline import Mask, Timeline, ints
from llmsim.metrics.usage import Presence, Span, busy_shares, mean_busy, worked_more
from llmsim.units import MILLISECOND

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
        *,
        percentiles: Sequence[float] = (),
    ) -> None:
        """`percentiles`: those that are asked for besides POINTS."""
        self._points = POINTS | {f"p{point:g}": point for point in percentiles}
        self._definitions, self._first_token_at_prefill_end = definitions, first_token_at_prefill_end
        self._models = {model: _Model(indices, exact_values, exact_times) for model, indices in members.items()}

    def add_requests(
        self, requests: pd.DataFrame, timeline: Timeline, measured: Mask, tokens: tuple[Ints, Ints], span: Span
    ) -> None:
        """Requests that are done with; those of the latencies are `measured` (requests,); `tokens` as in Rates."""
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
            found.count(requests[chosen], (tokens[0][chosen], tokens[1][chosen]), span)
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
            reports[model] = found.report(span, self._points) | {
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
        self.rates = Rates()
        self._sent = self._completed = 0

    def count(self, requests: pd.DataFrame, tokens: tuple[Ints, Ints], span: Span) -> None:
        """Requests of this model, and their tokens in the span."""
        self._sent += len(requests)
        self._completed += int((requests["status"] == "finished").sum())
        self.rates.add(requests, tokens, span)

    def report(self, span: Span, percentiles: Mapping[str, float]) -> Report:
        report: Report = {
            "replicas": len(self.members),
            "sent": self._sent,
            "completed": self._completed,
            **self.rates.report(span),
        }
        for name, sample in self.latencies.items():
            points = sample.percentiles(list(percentiles.values())) / MILLISECOND
            report[f"mean_{name}_ms"] = sample.mean() / MILLISECOND
            report |= {f"{point}_{name}_ms": float(at) for point, at in zip(percentiles, points, strict=True)}
        return report
