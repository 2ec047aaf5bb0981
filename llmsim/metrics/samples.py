"""Sample: how often each value of a latency occurs; exact up to a stated number of different values, then a sketch.

A sample kept as its different values with counts has one form, whatever order it was put together in: a run that
is summarised window by window gives the same bytes as one that is summarised whole.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ddsketch import DDSketch
from numpy.typing import NDArray

from llmsim.errors import ConfigError
from llmsim.metrics.quantiles import (
    Floats,
    Ints,
    percentiles_of_sorted,
    weighted_mean,
    weighted_std,
)

Values = NDArray[Any]
"""int64 or float64."""

EXACT_VALUES = 1 << 22
"""Different values of one sample up to which its percentiles are exact: 64 MiB."""
RELATIVE_ERROR = 0.001
"""Past that, a percentile is off by at most this share of its value (DDSketch, VLDB 2019)."""
MERGE_AT = 1 << 19
"""Values that wait in parts before they are merged, at least (8 MiB): merging sorts all there are."""


class Sample:
    """Values (int ns or floats) with counts. Means and deviations stay exact past the limit, to float rounding."""

    def __init__(self, exact_values: int = EXACT_VALUES) -> None:
        self._limit = exact_values
        self._values: Values = np.empty(0, dtype=np.int64)
        self._weights: Ints = np.empty(0, dtype=np.int64)
        self._parts: list[tuple[Values, Ints | None]] = []
        self._waiting = 0
        self._folded: _Folded | None = None

    @classmethod
    def of(cls, values: Values, weights: Ints | None = None) -> Sample:
        """A sample that is exact whatever its size."""
        sample = cls(exact_values=len(values))
        sample.add(values, weights)
        return sample

    def add(self, values: Values, weights: Ints | None = None) -> None:
        """`values[i]` occurs `weights[i]` times more (None: once); shapes (n,), (n,)."""
        if not len(values):
            return
        self._parts.append((values, weights))
        self._waiting += len(values)
        if self._waiting > max(MERGE_AT, len(self._values)):
            self._merge()

    @property
    def exact(self) -> bool:
        """Whether the percentiles are."""
        self._merge()
        return self._folded is None

    def exact_part(self) -> tuple[Values, Ints]:
        """Different values in ascending order and their counts, of what is not in the sketch."""
        self._merge()
        return self._values, self._weights

    @property
    def count(self) -> int:
        """How many there are, counts added."""
        self._merge()
        return int(self._weights.sum()) + (self._folded.count if self._folded else 0)

    def mean(self) -> float:
        """Mean, NaN if empty."""
        self._merge()
        return self._all_folded().mean if self._folded else weighted_mean(self._values, self._weights)

    def std(self) -> float:
        """Standard deviation with ddof 0, as vLLM's np.std; NaN if empty."""
        self._merge()
        return self._all_folded().std if self._folded else weighted_std(self._values, self._weights)

    def percentiles(self, points: list[float]) -> Floats:
        """Percentiles (0-100), as numpy's method 'linear' has them; past the limit within RELATIVE_ERROR."""
        self._merge()
        if self._folded:
            return self._all_folded().percentiles(points)
        return percentiles_of_sorted(self._values, self._weights, points)

    def _merge(self) -> None:
        if not self._parts:
            return
        once = [values for values, weights in self._parts if weights is None]
        parts = [(values, weights) for values, weights in self._parts if weights is not None]
        if once:
            parts.append(counted(np.concatenate(once)))
        if len(self._values):
            parts.append((self._values, self._weights))
        self._parts, self._waiting = [], 0
        every, often = (np.concatenate(column) for column in zip(*parts, strict=True))
        if often.sum(dtype=np.float64) >= 2**63:  # int64 sums would wrap
            raise ConfigError(
                "a sample holds 2**63 counts or more (as ns, 292 replica-years); make the run shorter "
                "or simulate the fleet cell by cell (docs/scale.md)"
            )
        self._values, self._weights = distinct(every, often)
        if len(self._values) > self._limit:
            self._all_folded()

    def _all_folded(self) -> _Folded:
        """Everything in the sketch."""
        if self._folded is None:
            self._folded = _Folded()
        if len(self._values):
            self._folded.add(self._values, self._weights)
            self._values, self._weights = self._values[:0], self._weights[:0]
        return self._folded


class _Folded:
    """A sketch, and the moments beside it."""

    def __init__(self) -> None:
        self._sketch = DDSketch(relative_accuracy=RELATIVE_ERROR)
        self.count = 0
        self.mean = math.nan
        self._squares = 0.0  # sum of squared deviations from the mean
        self._least, self._most = math.inf, -math.inf

    @property
    def std(self) -> float:
        return math.sqrt(self._squares / self.count)

    def add(self, values: Values, weights: Ints) -> None:
        """Moments by Chan's update; the sketch gets one value a bucket, since a call costs a microsecond."""
        values, weights = values[weights > 0], weights[weights > 0]
        if not len(values):
            return
        count, mean, std = int(weights.sum()), weighted_mean(values, weights), weighted_std(values, weights)
        if self.count:
            distance, total = mean - self.mean, self.count + count
            self._squares += std * std * count + distance * distance * (self.count * count / total)
            self.mean += distance * (count / total)
        else:
            self.mean, self._squares = mean, std * std * count
        self.count += count
        self._least, self._most = min(self._least, float(values[0])), max(self._most, float(values[-1]))
        gamma = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
        positive = values > 0
        keys = np.ceil(np.log(values[positive]) / math.log(gamma)).astype(np.int64)
        for key, weight in zip(*distinct(keys, weights[positive]), strict=True):
            self._sketch.add(gamma ** float(key) * 2 / (1 + gamma), float(weight))
        if (zeros := int(weights[~positive].sum())) > 0:
            self._sketch.add(0.0, float(zeros))

    def percentiles(self, points: list[float]) -> Floats:
        found = [self._sketch.get_quantile_value(point / 100) for point in points]
        return np.clip(np.array(found, dtype=np.float64), self._least, self._most)


def counted(values: Values) -> tuple[Values, Ints]:
    """The different values in ascending order, and how often each occurs."""
    ordered = np.sort(values)
    first = np.flatnonzero(np.concatenate([np.ones(min(len(ordered), 1), dtype=bool), ordered[1:] != ordered[:-1]]))
    counts: Ints = np.diff(first, append=len(ordered)).astype(np.int64, copy=False)
    return ordered[first], counts


def distinct(values: Values, weights: Ints) -> tuple[Values, Ints]:
    """The different values in ascending order, and the sum of the weights of each; int sums, so exact."""
    if not len(values):
        return values, weights
    order = np.argsort(values)
    ordered = values[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[first], np.add.reduceat(weights[order], first)
