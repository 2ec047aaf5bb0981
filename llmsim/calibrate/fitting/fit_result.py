"""What a fit returns: the batch time, where and how well it holds, what it was compared with, and what to doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmsim.calibrate.fitting.features import SUMS
from llmsim.core.batch import Work
from llmsim.costs.box import QUANTITIES, Box, Range
from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from llmsim.costs.forms import BatchTime
    from llmsim.costs.records import ErrorFigures, FitErrors


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One form in the comparison.

    `numbers` counts what the data decides: coefficients, knots, the size of a tile. `held_out` is None for a form that
    could not be fitted; `note` says why, or what became of it.
    """

    name: str
    form: str
    numbers: int
    held_out: ErrorFigures | None
    note: str
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTimeFit:
    """A fitted batch time and everything that is known about it.

    `predictions` has a row a case, in the order of the table of the fit: case, regime (prefill, decode, mixed), the six
    sums, tokens, sequences, measured_s, predicted_s, held_out_predicted_s (by a fit to other cases), relative_error and
    held_out_relative_error (predicted / measured - 1), outlier (left out of the fit), spread_pct, repeats.
    `errors` count all cases, outliers among them; `errors_without_outliers` do not.
    """

    batch_time: BatchTime
    box: Box
    errors: FitErrors
    errors_without_outliers: FitErrors
    candidates: tuple[Candidate, ...]
    reason: str
    predictions: pd.DataFrame
    warnings: tuple[str, ...]

    @property
    def outliers(self) -> pd.DataFrame:
        """The cases that were left out of the fit, worst first."""
        left_out = self.predictions[self.predictions["outlier"]]
        return left_out.sort_values("relative_error", key=np.abs, ascending=False)


def works_of(table: pd.DataFrame) -> list[Work]:
    """The sums of every row, as a cost model takes them."""
    return [Work(*(int(value) for value in row)) for row in table[list(SUMS)].itertuples(index=False)]


def predicted(batch_time: BatchTime, works: list[Work]) -> NDArray[np.float64]:
    """Seconds of each batch as the simulator will price it, shape (works,); 0 where the price is not positive."""
    price = batch_time.cost_model().seconds
    seconds = np.zeros(len(works))
    for row, work in enumerate(works):
        try:
            seconds[row] = price(work)
        except CalibrationError:
            seconds[row] = 0.0  # an error of 100 %, which no comparison overlooks
    return seconds


def measured_box(table: pd.DataFrame, source: str) -> Box:
    """The least (above 0) and greatest value of every sum; 0 to 0 for what no batch had, which then is outside."""
    works = works_of(table)
    ranges = []
    for quantity in QUANTITIES:
        values = [int(getattr(work, quantity)) for work in works]
        present = [value for value in values if value]
        # A sum that some cases lack altogether was measured down to nothing: what lies between is no extrapolation.
        low = 1 if present and len(present) < len(values) else min(present, default=0)
        ranges.append(Range(quantity, low, max(values)))
    return Box(ranges=tuple(ranges), source=source)
