"""Fits that a few wrong measurements cannot bend: flag them under a Huber loss, then fit the rest.

An outlier is a case whose relative residual under the Huber fit is above OUTLIER_SIGMAS robust standard deviations
(1.4826 times the median absolute deviation) and above LEAST_OUTLIER. It stays out of the fit and in the reports. At
most MOST_OUTLIERS of the cases are left out, the worst: more of them are no accident but a form that does not hold.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llmsim.calibrate.fitting.fit import positive_relative_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.float64]
    Flags = NDArray[np.bool_]

OUTLIER_SIGMAS = 4.0
LEAST_OUTLIER = 0.02
"""Relative residual below which nothing is an outlier, however well the rest fits."""
MOST_OUTLIERS = 0.10
HUBER_EPSILON = 1.35
"""Where the loss turns from square to straight, in standard deviations: 95 % efficient on normal errors (Huber)."""


class RobustFit(NamedTuple):
    """Coefficients (terms,), which cases were left out (cases,), and how many looked like outliers."""

    coefficients: Table
    outliers: Flags
    suspects: int


def robust_fit(columns: Table, seconds: Table) -> RobustFit:
    """Coefficients >= 0 of the least squares of relative errors over the cases that are no outliers.

    Shapes: columns (cases, terms), seconds (cases,).
    """
    plain = positive_relative_fit(columns, seconds)
    residuals = columns @ plain / seconds - 1.0
    if np.abs(residuals).max() <= LEAST_OUTLIER:
        return RobustFit(plain, np.zeros(len(seconds), dtype=bool), 0)
    residuals = huber_residuals(columns, seconds)
    suspect = _suspects(residuals, columns.shape[1])
    outliers = _worst(suspect, residuals)
    if not outliers.any():
        return RobustFit(plain, outliers, int(suspect.sum()))
    kept = positive_relative_fit(columns[~outliers], seconds[~outliers])
    return RobustFit(kept, outliers, int(suspect.sum()))


def quick_fit(columns: Table, seconds: Table) -> Table:
    """Coefficients for comparing many structures: the positive fit, then once more without its own far residuals."""
    found = positive_relative_fit(columns, seconds)
    residuals = columns @ found / seconds - 1.0
    outliers = _worst(_suspects(residuals, columns.shape[1]), residuals)
    return positive_relative_fit(columns[~outliers], seconds[~outliers]) if outliers.any() else found


def huber_residuals(columns: Table, seconds: Table) -> Table:
    """Relative residuals (predicted / measured - 1) of scikit-learn's HuberRegressor, shape (cases,).

    Rows are divided by the measured time, so that the loss sees relative errors; sample weights would leave its
    threshold in seconds and flag the long batches. The columns are replaced by an orthonormal basis of what they
    span, which changes no residual and lets the solver converge in a few steps.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import HuberRegressor

    relative = columns / seconds[:, None]
    basis, sizes, _ = np.linalg.svd(relative / np.maximum(np.abs(relative).max(axis=0), 1e-300), full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes[0]] * np.sqrt(len(seconds))
    model = HuberRegressor(epsilon=HUBER_EPSILON, alpha=0.0, fit_intercept=False, max_iter=1000, tol=1e-6)
    with warnings.catch_warnings():
        # The residuals only have to tell a stray from the rest; the last digits of an unfinished solution do not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(basis, np.ones(len(seconds)))
    return np.asarray(basis @ model.coef_ - 1.0, dtype=np.float64)


def _suspects(residuals: Table, terms: int) -> Flags:
    """Which residuals are far from the others; a fit with many terms for its cases has residuals that are too small."""
    free = max(len(residuals) - terms, 1)
    sigma = 1.4826 * float(np.median(np.abs(residuals))) * np.sqrt(len(residuals) / free)
    return np.asarray(np.abs(residuals) > max(OUTLIER_SIGMAS * sigma, LEAST_OUTLIER))


def _worst(suspect: Flags, residuals: Table) -> Flags:
    """The suspects, or the worst of them where they are more than MOST_OUTLIERS of all."""
    most = int(MOST_OUTLIERS * len(residuals))
    if suspect.sum() <= most:
        return suspect
    chosen = np.zeros(len(residuals), dtype=bool)
    chosen[np.argsort(-np.abs(residuals), kind="stable")[:most]] = True
    return chosen
