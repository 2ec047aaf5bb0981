"""What a reader of a fit should know, in sentences: strays, terms that cannot be told apart, bias, jumps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from llmsim.calibrate.fitting.design import FormFit
from llmsim.calibrate.fitting.robust_fit import MOST_OUTLIERS
from llmsim.core.batch import Work
from llmsim.costs.forms import BatchTime

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

WEAK = 0.5
"""Standard error of a coefficient, as a share of it, above which it is called uncertain."""
BIASED = 0.03
"""Median relative error of a regime above which it is said."""
JUMP = 0.01
"""Share by which a price may fall at a knot without being mentioned."""


def fit_warnings(fit: FormFit, predictions: pd.DataFrame, left_out: Mapping[str, str]) -> list[str]:
    """The sentences, most serious first; `predictions` as in BatchTimeFit, `left_out` from comparable_forms."""
    return [
        *_outliers(fit),
        *(f"{term} cannot be found: {reason}" for term, reason in left_out.items()),
        *_bias(predictions),
        *_weak(fit, predictions["measured_s"].to_numpy(dtype=np.float64)),
        *_jumps(fit.batch_time),
    ]


def _outliers(fit: FormFit) -> Iterator[str]:
    share = fit.suspects / len(fit.outliers)
    if share > MOST_OUTLIERS:
        yield (
            f"{fit.suspects} of {len(fit.outliers)} cases ({share:.0%}) lie far from the fit; the worst"
            f" {int(fit.outliers.sum())} were left out. So many are no accident: either the form does not hold for this"
            " device, or something else ran on it. Look at the residuals, and measure again"
        )


def _bias(predictions: pd.DataFrame) -> Iterator[str]:
    for regime, part in predictions.groupby("regime"):
        middle = float(part["relative_error"].median())
        if abs(middle) > BIASED:
            way = "too long" if middle > 0 else "too short"
            yield f"{regime} batches are predicted {way}: median error {100 * middle:+.1f} % over {len(part)} cases"


def _weak(fit: FormFit, seconds: NDArray[np.float64]) -> Iterator[str]:
    """Coefficients whose standard error, from the relative residuals of the kept cases, is large."""
    kept = ~fit.outliers
    design = fit.design[kept] / seconds[kept, None]
    scale = design.max(axis=0)
    used = scale > 0
    scaled = design[:, used] / scale[used]
    values, *_ = np.linalg.lstsq(scaled, np.ones(len(scaled)), rcond=None)
    free = max(len(scaled) - scaled.shape[1], 1)
    variance = float(np.square(scaled @ values - 1.0).sum()) / free
    errors = np.sqrt(variance * np.diag(np.linalg.pinv(scaled.T @ scaled)))
    names = [name for name, there in zip(fit.names, used, strict=True) if there]
    # Coefficients at their bound of 0 are not uncertain in this sense: the table of the report shows them as 0.
    uncertain = [name for name, value, error in zip(names, values, errors, strict=True) if error > WEAK * value > 0]
    if uncertain:
        yield (
            f"uncertain by more than {WEAK:.0%}: {', '.join(uncertain)}. The cases hardly show them apart from the"
            " others: trust the sum, not the single number"
        )


def _jumps(batch_time: BatchTime) -> Iterator[str]:
    """Knots where one more token makes a batch cheaper, for decodes and for one prompt chunk."""
    for part in batch_time.strata[:-1]:
        limit = part.max_tokens or 0
        model = batch_time.cost_model()
        for what, make in (("a prompt chunk", _chunk), ("decodes", _decodes)):
            below, above = model.seconds(make(limit)), model.seconds(make(limit + 1))
            if above < below * (1 - JUMP):
                yield (
                    f"at {limit} tokens the strata do not meet: one token more makes a batch of {what}"
                    f" {100 * (1 - above / below):.1f} % cheaper, which a scheduler that asks for prices may exploit"
                )


def _chunk(tokens: int) -> Work:
    return Work(tokens, 1, 0, tokens * (tokens + 1) // 2)


def _decodes(tokens: int) -> Work:
    return Work(decode_tokens=tokens, decode_context=256 * tokens)
