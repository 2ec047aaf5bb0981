"""Means over seeds with 95 % intervals: Student's t over independent values, and paired ratios on a log scale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval (Student's t over independent seeds)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Intervals(NamedTuple):
    """Means and the ends of their 95 % intervals, each of shape (rows,); NaN where there is none."""

    mean: Floats
    low: Floats
    high: Floats


@cache
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The two-sided Student-t quantile: 2.776 for 4 degrees of freedom at 95 %."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def interval(values: Sequence[float] | np.ndarray | pd.Series) -> Interval:
    """Of at least two values; of one, the bounds are NaN."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = t_quantile(len(sample) - 1) * float(sample.std(ddof=1)) / len(sample) ** 0.5
    return Interval(mean, mean - half, mean + half)


def intervals(samples: Floats) -> Intervals:
    """Of each row of `samples`, shape (rows, seeds); a row that lacks a value (NaN) has no mean.

    A mean over the seeds that happen to have a value would hide what the others ran into.
    """
    mean = samples.mean(axis=1)
    seeds = samples.shape[1]
    if seeds < 2:
        return Intervals(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    half = t_quantile(seeds - 1) * samples.std(axis=1, ddof=1) / seeds**0.5
    return Intervals(mean, mean - half, mean + half)


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
