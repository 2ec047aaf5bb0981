"""Means over seeds with Student-t intervals, and paired ratios on a log scale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llmsim.theory.intervals import t_quantile


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean (of ratios: the geometric one), median and 95 % interval of the mean; `low`, `high` None for one value."""

    mean: float
    median: float
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | None]:
        """JSON-ready."""
        return {"mean": self.mean, "median": self.median, "ci95_low": self.low, "ci95_high": self.high}


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean +- t * s / sqrt(n), t the quantile of n - 1 degrees of freedom, s the sample deviation; n >= 1."""
    mean, median = statistics.fmean(values), statistics.median(values)
    if len(values) == 1:
        return Estimate(mean, median, None, None)
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, median, mean - half, mean + half)


def ratio_estimate(values: Sequence[float], base: Sequence[float]) -> Estimate:
    """Ratio of pairs (same seed, same requests), all above 0: the interval is that of their logarithms' mean.

    What a seed does to both cancels in its ratio, so this is much narrower than two separate intervals.
    """
    logs = mean_estimate([math.log(value / other) for value, other in zip(values, base, strict=True)])
    ends = [None if end is None else math.exp(end) for end in (logs.low, logs.high)]
    return Estimate(math.exp(logs.mean), math.exp(logs.median), *ends)
