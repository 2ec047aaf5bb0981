"""Fitting batch times: least squares of relative errors with coefficients that are not negative.

Batches span two orders of magnitude in time, and a simulated run sums many short ones: an error counts by its
share of the batch, not by its milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmsim.costs.records import ErrorFigures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.float64]


def positive_relative_fit(columns: Table, seconds: Table) -> Table:
    """Coefficients >= 0 with the least sum of squares of (columns @ coefficients - seconds) / seconds.

    Shapes: columns (cases, terms), seconds (cases,), result (terms,).
    """
    # Imported here: it takes 1.3 s, and only those who fit need it.
    from sklearn.linear_model import LinearRegression

    # Columns hold counts of 1 and of 10^13; scaled, the solver sees numbers of one size.
    scale = columns.max(axis=0)
    scale[scale == 0] = 1.0
    model = LinearRegression(positive=True, fit_intercept=False)
    model.fit(columns / scale, seconds, sample_weight=seconds**-2)
    return np.asarray(model.coef_ / scale, dtype=np.float64)


def error_figures(relative: Table) -> ErrorFigures:
    """Size of relative errors (predicted / measured - 1), in percent to two places."""
    size = np.abs(relative) * 100
    return ErrorFigures(
        cases=len(size),
        mape_pct=round(float(size.mean()), 2),
        p95_pct=round(float(np.percentile(size, 95)), 2),
        max_pct=round(float(size.max()), 2),
    )


def significant(value: float, digits: int = 5) -> float:
    """`value` to `digits` significant digits: refitting with another BLAS then gives the same file."""
    return float(f"{value:.{digits - 1}e}")
