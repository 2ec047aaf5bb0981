"""The `slo` part of a summary: attainment and goodput, of all requests and of each class.

All of it is of the requests that finished in the measured span, as the throughput is: of these, goodput / throughput =
`attainment_of_completed`. Rejected, failed and unfinished requests have missed their service level: `attainment` has
them in its denominator, and each is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from llmsim.metrics.latency import Definitions, itl_samples, ttft_ns
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.rates import finished_inside, lost
from llmsim.metrics.samples import EXACT_VALUES, Sample, Values
from llmsim.metrics.slo import CLASS_TARGETS, Slo, TbtRule, has_target, slo_met
from llmsim.metrics.timeline import Mask, Timeline, longest_gaps
from llmsim.metrics.usage import Span
from llmsim.units import MILLISECOND, SECOND

Report = dict[str, Any]
LOST = ("rejected", "unfinished", "failed")


@dataclass(slots=True)
class _Count:
    """Requests with a limit, and how many of them met it."""

    met: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        """Those that the span answers for."""
        return self.ended.total()

    def add(self, counted: Mask, met: Mask, status: Values) -> None:
        """`counted` (requests,) of requests with these ends."""
        names, often = np.unique(status[counted].astype(str), return_counts=True)
        self.ended.update(dict(zip(names.tolist(), often.tolist(), strict=True)))
        self.met += int((met & counted).sum())

    def report(self, span: Span) -> Report:
        completed, seconds = self.ended["finished"], span.length_ns / SECOND
        return {
            "sent": self.sent,
            "completed": completed,
            **{how: self.ended[how] for how in LOST},
            "met": self.met,
            "attainment": self.met / self.sent if self.sent else None,
            "attainment_of_completed": self.met / completed if completed else None,
            "request_throughput": completed / seconds if seconds else None,
            "request_goodput": self.met / seconds if seconds else None,
        }


class Attainment:
    """Verdicts added up over tables of requests, each request once.

    A class's gaps are those of `itl_samples`, so with the 'slai' definitions they are the papers' TBT samples.
    """

    def __init__(
        self,
        slo: Slo | None = None,
        definitions: Definitions = "vllm",
        tbt_rule: TbtRule = "max",
        first_token_at_prefill_end: bool | None = None,
        exact_values: int = EXACT_VALUES,
        *,
        expected: bool = False,
        percentiles: Sequence[float] = (),
    ) -> None:
        """`expected`: some request will have a limit, so classes are counted also while none has come yet.

        `percentiles`: those of a class's TTFT and gaps that are asked for besides its own.
        """
        self._percentiles = tuple(percentiles)
        self.slo, self.definitions, self.tbt_rule = slo, definitions, tbt_rule
        self._first_token_at_prefill_end = first_token_at_prefill_end
        self._exact_values, self._expected = exact_values, expected
        self._all = _Count()
        self._classes: dict[str, _Class] = {}

    def add(self, requests: pd.DataFrame, timeline: Timeline, measured: Mask, span: Span) -> None:
        """Further requests and when their tokens came; latencies are of the `measured` (requests,)."""
        targeted = has_target(requests, self.slo)
        if not (self._expected or targeted.any()):
            return
        inside, status = finished_inside(requests, span), requests["status"].to_numpy()
        counted = targeted & (inside | lost(requests, span))
        longest = longest_gaps(timeline)
        met = slo_met(requests, longest, self.slo, definitions=self.definitions, tbt_rule=self.tbt_rule)
        self._all.add(counted, met, status)
        names = requests["slo_class"].to_numpy()
        finished = (requests["status"] == "finished").to_numpy(dtype=bool)
        ttft = ttft_ns(requests, self.definitions)
        for name in sorted({str(name) for name in names[measured | counted | inside]}):
            of_name = np.asarray(names == name)
            members = measured & of_name
            of_class = self._classes.setdefault(name, _Class(Sample(self._exact_values), Sample(self._exact_values)))
            of_class.count.add(counted & of_name, met, status)
            of_class.completed += int((inside & of_name).sum())
            of_class.measured += int((finished & members).sum())
            of_class.ttft.add(ttft[finished & members & ~np.isnan(ttft)])
            of_class.see_targets(requests, members)
            if (target := of_class.target("tbt_s")) is not None:
                gaps = itl_samples(requests, timeline, members, self.definitions, self._first_token_at_prefill_end)
                of_class.see_gaps(target, *gaps)

    def report(self, span: Span) -> Report | None:
        """Attainment and goodput; None if no request had a limit."""
        if not self._all.sent:
            return None
        return {
            "limits_ms": {} if self.slo is None else self.slo.limits(),
            "tbt_rule": self.tbt_rule,
            **self._all.report(span),
            "classes": {name: self._classes[name].report(span, self._percentiles) for name in sorted(self._classes)},
        }


@dataclass(slots=True)
class _Class:
    """What one class came to; samples in ns."""

    ttft: Sample
    gaps: Sample
    count: _Count = field(default_factory=_Count)
    completed: int = 0
    measured: int = 0
    over_target: int = 0
    targets: dict[str, set[float]] = field(default_factory=lambda: {column: set() for column in CLASS_TARGETS})

    def see_targets(self, requests: pd.DataFrame, members: Mask) -> None:
        """Two different targets are enough to know that the class has no common one."""
        for column, seen in self.targets.items():
            if len(seen) < 2:
                values = np.unique(requests[column].to_numpy(dtype=np.float64)[members])  # all NaN count as one
                seen.update(-1.0 if np.isnan(value) else float(value) for value in values[:3])

    def see_gaps(self, target: float, gaps: Ints, weights: Ints) -> None:
        """Gaps (ns) with counts, against the TBT target (seconds)."""
        self.gaps.add(gaps, weights)
        self.over_target += int(weights[gaps > round(target * SECOND)].sum())

    def target(self, column: str) -> float | None:
        """The class's own target, seconds; None where it has none (kept as -1) or its requests differ."""
        seen = self.targets[column]
        only = next(iter(seen)) if len(seen) == 1 else -1.0
        return only if only >= 0 else None

    def report(self, span: Span, percentiles: Sequence[float]) -> Report:
        targets = {
            name: self.target(column) for column, name in zip(CLASS_TARGETS, ("ttft", "tbt", "ttlt"), strict=True)
        }
        report = self.count.report(span) | {"completed": self.completed, "measured": self.measured}
        report |= {"targets_s": targets} | _points("ttft", self.ttft, {"median": 50, "p99": 99}, percentiles)
        if targets["tbt"] is None:
            return report
        total = self.gaps.count
        report |= _points("itl", self.gaps, {"p99": 99}, percentiles)
        return report | {"itl_over_target_share": self.over_target / total if total else None}


def _points(name: str, sample: Sample, own: dict[str, float], more: Sequence[float]) -> Report:
    """Percentiles of a latency in ms, by their names in the summary; None if there are no values."""
    points = own | {f"p{point:g}": point for point in more}
    if not sample.count:
        return {f"{point}_{name}_ms": None for point in points}
    found = (sample.percentiles(list(points.values())) / MILLISECOND).tolist()
    return {f"{point}_{name}_ms": at for point, at in zip(points, found, strict=True)}
