"""Exact statistics of weighted samples: what numpy says of the expanded sample, without expanding it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def weighted_percentiles(values: Ints | Floats, weights: Ints, percentiles: Sequence[float]) -> Floats:
    """Percentiles (0-100) of the sample in which `values[i]` occurs `weights[i]` times.

    Equal to np.percentile(np.repeat(values, weights), percentiles), bit for bit (method 'linear': the same
    virtual index and the same interpolation). Shapes (n,), (n,) -> (len(percentiles),); NaN for an empty
    sample. Weights are counts >= 0; a time-weighted percentile passes nanoseconds.
    """
    order = np.argsort(values)
    return percentiles_of_sorted(values[order], weights[order], percentiles)


def percentiles_of_sorted(ordered: Ints | Floats, weights: Ints, percentiles: Sequence[float]) -> Floats:
    """The same of values in ascending order."""
    total = int(weights.sum())
    if total == 0:
        return np.full(len(percentiles), np.nan)
    cumulated = np.cumsum(weights)
    virtual = (total - 1) * (np.asarray(percentiles, dtype=np.float64) / 100)
    lower = np.minimum(np.floor(virtual).astype(np.int64), total - 1)
    upper = np.minimum(lower + 1, total - 1)
    # The k-th smallest of the expanded sample (from 0) is the first value whose cumulated count exceeds k.
    a = ordered[np.searchsorted(cumulated, lower, side="right")].astype(np.float64)
    b = ordered[np.searchsorted(cumulated, upper, side="right")].astype(np.float64)
    share = virtual - lower
    # numpy interpolates from the nearer end, so that the result is monotone in the percentile.
    points: Floats = np.where(share < 0.5, a + (b - a) * share, b - (b - a) * (1 - share))
    return points


def weighted_mean(values: Ints | Floats, weights: Ints) -> float:
    """Mean of the expanded sample, NaN if it is empty. Int values are summed exactly if int64 holds the sum."""
    total = int(weights.sum())
    if not total:
        return float("nan")
    if float(np.abs(values).max()) * total >= 2**63:  # 230 thousand million gaps of 40 ms, for instance
        values = values.astype(np.float64)
    return float((values * weights).sum()) / total


def weighted_std(values: Ints | Floats, weights: Ints) -> float:
    """Standard deviation of the expanded sample with ddof 0, as vLLM's np.std; NaN if it is empty."""
    total = int(weights.sum())
    if not total:
        return float("nan")
    deviation = values - weighted_mean(values, weights)
    # A plain sum, not np.dot: BLAS orders additions by thread count; summaries must be byte-identical.
    return float(np.sqrt((deviation * deviation * weights).sum() / total))


def ones(values: Ints | Floats) -> Ints:
    """Weights of a sample in which each value occurs once."""
    return np.ones(len(values), dtype=np.int64)
