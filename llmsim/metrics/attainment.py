"""The `slo` part of a summary: attainment and goodput, of all requests and of each class.

Attainment = requests that met their service level / all requests sent (rejected, failed and unfinished ones
stay in the denominator). Goodput = the same numerator / seconds of the measured span.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from llmsim.metrics.latency import Definitions, itl_samples, ttft_ns
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.samples import EXACT_VALUES, Sample
from llmsim.metrics.slo import CLASS_TARGETS, Slo, TbtRule, has_target, slo_met
from llmsim.metrics.timeline import Mask, Timeline, longest_gaps
from llmsim.metrics.usage import Span
from llmsim.units import MILLISECOND, SECOND

Report = dict[str, Any]


@dataclass(slots=True)
class _Count:
    """Requests with a limit, and how many of them met it."""

    sent: int = 0
    met: int = 0

    def add(self, targeted: Mask, met: Mask) -> None:
        self.sent += int(targeted.sum())
        self.met += int((met & targeted).sum())

    def report(self, span: Span) -> Report:
        return {
            "sent": self.sent,
            "met": self.met,
            "attainment": self.met / self.sent if self.sent else None,
            "request_goodput": self.met * SECOND / span.length_ns if span.length_ns else None,
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
    ) -> None:
        """`expected`: some request will have a limit, so classes are counted also while none has come yet."""
        self.slo, self.definitions, self.tbt_rule = slo, definitions, tbt_rule
        self._first_token_at_prefill_end = first_token_at_prefill_end
        self._exact_values, self._expected = exact_values, expected
        self._all = _Count()
        self._classes: dict[str, _Class] = {}

    def add(self, requests: pd.DataFrame, timeline: Timeline, measured: Mask) -> None:
        """The `measured` (requests,) of further requests and when their tokens came."""
        targeted = has_target(requests, self.slo) & measured
        if not (self._expected or targeted.any()):
            return
        longest = longest_gaps(timeline)
        met = slo_met(requests, longest, self.slo, definitions=self.definitions, tbt_rule=self.tbt_rule)
        self._all.add(targeted, met)
        names = requests["slo_class"].to_numpy()
        finished = (requests["status"] == "finished").to_numpy(dtype=bool)
        ttft = ttft_ns(requests, self.definitions)
        for name in sorted({str(name) for name in names[measured]}):
            members = measured & np.asarray(names == name)
            of_class = self._classes.setdefault(name, _Class(Sample(self._exact_values), Sample(self._exact_values)))
            of_class.count.add(targeted & members, met)
            of_class.completed += int((finished & members).sum())
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
            "classes": {name: self._classes[name].report(span) for name in sorted(self._classes)},
        }


@dataclass(slots=True)
class _Class:
    """What one class came to; samples in ns."""

    ttft: Sample
    gaps: Sample
    count: _Count = field(default_factory=_Count)
    completed: int = 0
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

    def report(self, span: Span) -> Report:
        targets = {
            name: self.target(column) for column, name in zip(CLASS_TARGETS, ("ttft", "tbt", "ttlt"), strict=True)
        }
        p50, p99 = (self.ttft.percentiles([50, 99]) / MILLISECOND).tolist() if self.ttft.count else (None, None)
        report = {"completed": self.completed, **self.count.report(span), "targets_s": targets}
        report |= {"median_ttft_ms": p50, "p99_ttft_ms": p99}
        if targets["tbt"] is None:
            return report
        total = self.gaps.count
        return report | {
            "p99_itl_ms": float(self.gaps.percentiles([99])[0]) / MILLISECOND,
            "itl_over_target_share": self.over_target / total if total else None,
        }
